package lane

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

func (w *world) circuit() {
	if w.down {
		w.p.lanes.Down(w.gate)
	} else {
		w.p.lanes.Up()
		w.p.next = map[uint64]time.Time{}
	}
}

func (w *world) tick() error {
	d := []time.Duration{time.Second, 30 * time.Second, w.limits.MaxAge}[w.choose(3, "how long")]
	if at := w.p.lanes.Wake(); d == time.Second && at.After(w.now) {
		w.now = at
	} else {
		w.now = w.now.Add(d)
	}
	return nil
}

// forget has the server forget that it removed a message.
func (w *world) forget() error {
	for _, e := range w.stream {
		if !e.there && e.finished && !e.deleted && !e.forgot && e.results > 0 && len(w.stream) <= w.limits.Recent {
			e.there, e.forgot, e.results = true, true, 0
			return nil
		}
	}
	return nil
}

// answers has the API answer a post.
func (w *world) answers(m *Message) {
	e, l := w.stream[m.Seq-1], w.p.lanes
	failed := func(a Answer) {
		l.Answered(w.now, m, a)
		w.p.next[m.Seq] = w.now.Add(max(w.limits.Initial/2, a.AtLeast))
	}
	ways := 6
	if e.parts > 0 {
		ways++
	}
	way := w.choose(ways, "answer")
	if w.bad[e.lane] {
		way = 2
	}
	switch {
	case w.down:
		if way == 0 {
			e.landed++
		}
		w.gate = w.now.Add(3 * time.Second)
		l.Down(w.gate)
		failed(Answer{Cause: Outage, Jitter: 0.5})
	case way == 6 || way == 0 && e.parts > 0: // an element of a batch is done
		e.parts--
		l.Answered(w.now, m, Answer{More: true})
		w.p.next[m.Seq] = w.now
		if n := l.lanes[m.Lane]; n == nil || n.state != queued || m.retry != (retry{}) {
			w.wrong = fmt.Errorf("the next element of message %d waits", m.Seq)
		}
	case way == 0:
		e.landed++
		w.p.answered[m.Seq], w.p.fresh[m.Seq] = true, true
		l.Answered(w.now, m, Answer{Verdict: &Verdict{Posted: true, Sent: true}})
	case way == 1:
		w.p.answered[m.Seq] = true
		l.Answered(w.now, m, Answer{Verdict: &Verdict{Sent: true}})
	case way == 2:
		failed(Answer{Jitter: 1})
	case way == 3: // the answer is lost
		e.landed++
		failed(Answer{Cause: Outage, Jitter: 0})
	case way == 4:
		failed(Answer{Cause: Throttled, AtLeast: 5 * time.Second})
	default:
		l.Answered(w.now, m, Answer{Withheld: true})
	}
}

// finish stores the outcome of a message and removes it.
func (w *world) finish(a Action) {
	e := w.stream[a.Message.Seq-1]
	if e.there {
		e.there, e.finished = false, true
		e.results++
	}
}

// abandon ends the work in flight without an answer.
func (w *world) abandon() {
	for _, a := range w.p.actions {
		switch {
		case a.Kind == Post && w.choose(2, "landed") == 0:
			w.stream[a.Message.Seq-1].landed++
		case a.Kind == Record && !w.cut && w.choose(2, "recorded") == 0:
			w.finish(a)
		}
	}
	w.p.actions = nil
}

// stop is a graceful stop: requests in flight are answered and recorded, and the next
// process begins.
func (w *world) stop() error {
	w.p.lanes.Stop()
	w.p.stopping = true
	choose, choices := w.choose, 0
	w.choose = func(n int, what string) int {
		if choices++; choices > 3 {
			return 0 // from then on everything goes well
		}
		return choose(n, what)
	}
	defer func() { w.choose = choose }()
	for range 1000 {
		if w.p.lanes.Quiet() {
			break
		}
		if len(w.p.actions) > 0 {
			if err := w.completes(w.choose(len(w.p.actions), "which")); err != nil {
				return err
			}
			continue
		}
		if err := w.begins(); err != nil {
			return err
		}
		if w.cut = false; len(w.p.actions) == 0 { // NATS is well during a stop
			w.now = w.now.Add(time.Second)
		}
	}
	if !w.p.lanes.Quiet() {
		return errors.New("the stop does not end")
	}
	for seq := range w.p.answered {
		if e := w.stream[seq-1]; e.there && !e.forgot && seq <= w.p.lanes.Position() && !w.kept(seq) {
			return fmt.Errorf("a graceful stop forgets the outcome of message %d", seq)
		}
	}
	w.choose = choose
	w.abandon()
	w.begin()
	return nil
}

// kept reports whether a verdict waits for its message to be read again, or behind
// a message that the server forgot it removed.
func (w *world) kept(seq uint64) bool {
	if _, ok := w.p.lanes.outcomes.kept[seq]; ok {
		return true
	}
	e := w.stream[seq-1]
	return slices.ContainsFunc(w.stream[:seq-1], func(b *entry) bool { return b.lane == e.lane && b.there && b.forgot })
}
