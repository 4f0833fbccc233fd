package lane

import (
	"errors"
	"fmt"
	"time"
)

// weight makes work more frequent than faults.
func weight(e event) int {
	switch e.name {
	case "deliver", "next", "complete":
		return 20
	case "publish":
		return 6
	case "tick":
		return 4
	}
	return 1
}

// pick chooses the next event; a random history takes each event by its weight.
func (w *world) pick() event {
	list := w.events()
	if !w.random {
		return list[w.choose(len(list), "event")]
	}
	total := 0
	for _, e := range list {
		total += weight(e)
	}
	at, i := w.choose(total, "event"), 0
	for ; at >= weight(list[i]); i++ {
		at -= weight(list[i])
	}
	return list[i]
}

// run makes a history and then lets everything end well.
func (w *world) run(steps int) error {
	for range steps {
		e := w.pick()
		w.steps++
		if err := e.do(); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
		if err := w.check(); err != nil {
			return fmt.Errorf("after %s: %w", e.name, err)
		}
	}
	return w.heal()
}

// heal ends all faults but the bad lanes', then those too, and wants everything
// done.
func (w *world) heal() error {
	w.down, w.cut, w.healed = false, false, w.now
	w.circuit()
	well := func(n int, what string) int { return 0 }
	w.choose = well
	if err := w.finishAll(func(e *entry) bool { return !w.bad[e.lane] }); err != nil {
		return fmt.Errorf("healthy lanes wait: %w", err)
	}
	w.healed = w.now
	w.bad = map[string]bool{}
	if err := w.finishAll(func(*entry) bool { return true }); err != nil {
		return err
	}
	l := w.p.lanes
	if len(l.lanes) != 0 || len(l.timers.lanes) != 0 || l.memory.messages != 0 || l.memory.bytes != 0 || l.open != 0 || l.troubled != 0 || l.recording != 0 {
		return fmt.Errorf("something is left: %+v", l.Status())
	}
	for _, e := range w.stream {
		if e.there || !e.deleted && e.results != 1 {
			return fmt.Errorf("message %d has %d results", e.seq, e.results)
		}
	}
	return nil
}

// finishAll runs until the messages that count are finished.
func (w *world) finishAll(counts func(*entry) bool) error {
	for range 200 * (len(w.stream) + 5) {
		done := true
		for _, e := range w.stream {
			// If the server lost a removal, the next process sees the message again.
			if e.there && counts(e) && (!e.forgot || e.seq > w.p.lanes.Position()) {
				done = false
			}
		}
		for key := range w.p.lanes.lanes {
			done = done && !counts(&entry{lane: key})
		}
		if done && len(w.p.actions) == 0 {
			if again := w.reread(counts); !again {
				return nil
			}
		}
		if e := w.unread(); e != nil && w.p.lanes.WantsMessages() {
			w.p.lanes.Deliver(w.message(e))
		}
		before := len(w.p.actions)
		if before < w.limits.Workers {
			if err := w.begins(); err != nil {
				return err
			}
		}
		if len(w.p.actions) == before && before > 0 {
			if err := w.completes(0); err != nil {
				return err
			}
		} else if len(w.p.actions) == 0 {
			at := w.p.lanes.Wake()
			if e := w.unread(); at.IsZero() && (e == nil || !w.p.lanes.WantsMessages()) && !done {
				return errors.New("nothing will ever happen again")
			}
			if at.After(w.now) {
				w.now = at
			}
		}
		if err := w.check(); err != nil {
			return err
		}
	}
	return fmt.Errorf("it does not end: %+v, %d actions", w.p.lanes.Status(), len(w.p.actions))
}

// reread begins again for messages that came back because the server lost their removal.
func (w *world) reread(counts func(*entry) bool) bool {
	for _, e := range w.stream {
		if e.there && counts(e) {
			w.p.lanes.Reset()
			w.p.fresh = map[uint64]bool{}
			w.p.next = map[uint64]time.Time{}
			return true
		}
	}
	return false
}
