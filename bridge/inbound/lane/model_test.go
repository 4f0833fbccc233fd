package lane

import (
	"errors"
	"fmt"
	"time"
)

// entry is one message in the model's stream.
type entry struct {
	seq      uint64
	lane     string
	at       time.Time
	there    bool // in the stream
	finished bool // was removed with a result or a dead letter, or by an operator
	results  int
	landed   int // posts that the API took
	parts    int // elements of a batch before its last one that are not posted yet
	deleted  bool
	forgot   bool // the server forgot once that it was removed
}

// process is one life of the bridge.
type process struct {
	lanes    *Lanes
	actions  []Action
	answered map[uint64]bool // it saw the API take or refuse the message
	fresh    map[uint64]bool // it saw so since the last reset
	next     map[uint64]time.Time
	stopping bool
}

// chooser makes the choices of a history: random ones, or all of them in turn.
type chooser func(n int, what string) int

// world is the reference model: a stream, an API, and one bridge after the other.
type world struct {
	choose chooser
	limits Limits
	now    time.Time
	stream []*entry
	bad    map[string]bool // these lanes always fail
	p      *process
	down   bool // the API
	gate   time.Time
	cut    bool // NATS is away
	left   int  // messages that may still be published
	lanes  []string
	steps  int
	random bool
	healed time.Time // when all faults ended
	wrong  error     // found while an answer was given
}

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func newWorld(choose chooser, limits Limits, lanes []string, messages int) *world {
	w := &world{choose: choose, limits: limits, now: start, lanes: lanes, left: messages, bad: map[string]bool{}}
	w.begin()
	return w
}

func (w *world) begin() {
	w.p = &process{lanes: New(w.limits), answered: map[uint64]bool{}, fresh: map[uint64]bool{}, next: map[uint64]time.Time{}}
	if w.down {
		w.p.lanes.Down(w.gate)
	}
}

func (w *world) publish(lane string) {
	w.left--
	e := &entry{seq: uint64(len(w.stream) + 1), lane: lane, at: w.now, there: true}
	if w.random {
		e.parts = max(0, w.choose(6, "parts")-3)
	}
	w.stream = append(w.stream, e)
}

func (w *world) message(e *entry) *Message {
	return &Message{Seq: e.seq, At: e.at, Lane: e.lane, Size: 10, Content: e}
}

// event is something that may happen now.
type event struct {
	name string
	do   func() error
}

// events lists the events that may happen now.
func (w *world) events() []event {
	list := make([]event, 0, 16)
	add := func(name string, do func() error) { list = append(list, event{name, do}) }
	l := w.p.lanes
	if w.left > 0 && w.random {
		add("publish", func() error { w.publish(w.lanes[w.choose(len(w.lanes), "lane")]); return nil })
	}
	if e := w.unread(); e != nil && l.WantsMessages() && !w.cut {
		add("deliver", func() error { l.Deliver(w.message(e)); return nil })
	}
	if len(w.p.actions) < w.limits.Workers {
		add("next", w.begins)
	}
	for i := range w.p.actions {
		add("complete", func() error { return w.completes(i) })
	}
	add("tick", w.tick)
	add("crash", func() error { w.abandon(); w.begin(); return nil })
	add("reset", func() error {
		w.abandon()
		l.Reset()
		w.p.next, w.p.fresh = map[uint64]time.Time{}, map[uint64]bool{}
		w.circuit()
		return nil
	})
	add("stop", w.stop)
	if w.random {
		add("api", func() error {
			if w.down = !w.down; w.down {
				w.gate = w.now.Add(3 * time.Second)
			}
			w.circuit()
			return nil
		})
		add("again", func() error {
			if n := min(int(l.Position()), len(w.stream)); n > 0 {
				l.Deliver(w.message(w.stream[w.choose(n, "which")]))
			}
			return nil
		})
		add("nats", func() error { w.cut = !w.cut; return nil })
		add("forget", w.forget)
		add("delete", func() error {
			if e := w.stream; len(e) > 0 {
				e := e[w.choose(len(e), "which")]
				e.there, e.finished, e.deleted = false, true, true
			}
			return nil
		})
	}
	return list
}

// unread is the next message that was not delivered.
func (w *world) unread() *entry {
	for _, e := range w.stream[min(int(w.p.lanes.Position()), len(w.stream)):] {
		if e.there {
			return e
		}
	}
	w.p.lanes.CaughtUp()
	return nil
}

// begins has a worker take an action.
func (w *world) begins() error {
	a, ok := w.p.lanes.Next(w.now)
	if !ok {
		return nil
	}
	lane := a.Lane
	if a.Message != nil {
		lane = a.Message.Lane
	}
	for _, b := range w.p.actions {
		if b.Lane == lane && b.Message == nil || b.Message != nil && b.Message.Lane == lane {
			return fmt.Errorf("two actions at once for lane %q", lane)
		}
	}
	w.p.actions = append(w.p.actions, a)
	switch a.Kind {
	case Post:
		return w.posts(a.Message)
	case GiveUp:
		if w.now.Sub(a.Message.At) < w.limits.MaxAge || a.Message.Content == nil {
			return fmt.Errorf("message %d given up too early, or without its content", a.Message.Seq)
		}
		if !w.healed.IsZero() && !w.bad[a.Message.Lane] && w.healed.Sub(a.Message.At) < w.limits.MaxAge-3*w.limits.Max {
			return fmt.Errorf("message %d given up without a reason", a.Message.Seq)
		}
	case Record:
		if !a.Verdict.Posted && a.Message.Content == nil {
			return fmt.Errorf("dead letter of message %d without its content", a.Message.Seq)
		}
		if !a.Verdict.Posted && a.Verdict.Sent && !w.p.answered[a.Message.Seq] {
			return fmt.Errorf("message %d has the verdict of another one", a.Message.Seq)
		}
	case Read:
		if a.From == 0 || a.From > a.To || a.To > w.p.lanes.Position() {
			return fmt.Errorf("reads %d to %d, delivered is %d", a.From, a.To, w.p.lanes.Position())
		}
		if a.Max < 1 || w.p.stopping && !w.p.answered[a.From] {
			return fmt.Errorf("reads at most %d, stopping %v", a.Max, w.p.stopping)
		}
	}
	return nil
}

// posts checks a post that goes out.
func (w *world) posts(m *Message) error {
	e := w.stream[m.Seq-1]
	open := 0
	for _, a := range w.p.actions {
		if a.Kind == Post {
			open++
		}
	}
	for _, n := range w.p.lanes.lanes {
		if n.head != nil && n.head.verdict != nil && n.head.verdict.Posted && !n.head.again && w.p.fresh[n.head.Seq] {
			open++
		}
	}
	switch {
	case m.Content != e:
		return fmt.Errorf("message %d posted without its content", m.Seq)
	case w.p.stopping:
		return fmt.Errorf("message %d posted while stopping", m.Seq)
	case w.p.answered[m.Seq]:
		return fmt.Errorf("message %d posted again by a process that saw the answer", m.Seq)
	case w.now.Sub(m.At) >= w.limits.MaxAge:
		return fmt.Errorf("message %d posted after its age", m.Seq)
	case open > w.limits.Workers:
		return fmt.Errorf("%d posts are open", open)
	case w.now.Before(w.p.next[m.Seq]):
		return fmt.Errorf("message %d tried %v too early", m.Seq, w.p.next[m.Seq].Sub(w.now))
	case w.down && w.now.Before(w.gate):
		return fmt.Errorf("message %d posted while the API is down", m.Seq)
	}
	if w.down {
		w.gate = w.now.Add(time.Second)
	}
	for _, b := range w.stream[:m.Seq-1] {
		if b.lane == e.lane && !b.finished {
			return fmt.Errorf("message %d overtakes %d", m.Seq, b.seq)
		}
	}
	for _, b := range w.stream[m.Seq:] {
		if b.lane == e.lane && b.landed > 0 && !e.forgot {
			return fmt.Errorf("message %d posted after %d", m.Seq, b.seq)
		}
	}
	return nil
}

var errLost = errors.New("no answer")

// completes ends an action in one of the ways in which it can end.
func (w *world) completes(i int) error {
	a := w.p.actions[i]
	w.p.actions = append(w.p.actions[:i:i], w.p.actions[i+1:]...)
	l := w.p.lanes
	switch a.Kind {
	case Post:
		w.answers(a.Message)
	case GiveUp:
		l.Answered(w.now, a.Message, Answer{Verdict: &Verdict{}})
	case Record:
		switch way := w.choose(3, "record"); {
		case way == 0 && !w.cut:
			w.finish(a)
			l.Recorded(w.now, a.Message, nil)
		case way == 1 && !w.cut:
			w.finish(a)
			l.Recorded(w.now, a.Message, errLost)
		default:
			l.Recorded(w.now, a.Message, errLost)
		}
	case Read:
		if w.cut || w.choose(4, "read") == 3 {
			l.Loaded(w.now, a, nil, 0, errLost)
			break
		}
		messages, through := w.read(a)
		l.Loaded(w.now, a, messages, through, nil)
	}
	return nil
}

func (w *world) read(a Action) (list []*Message, through uint64) {
	// A filter may match messages of no known form, and the server may send more
	// than was asked for: both are ignored.
	loose, found := w.random && w.choose(4, "loose") == 1, 0
	through = a.To
	for _, e := range w.stream[a.From-1:] {
		if !e.there || e.lane != a.Lane && !loose || e.seq > through && !loose {
			continue
		}
		list = append(list, w.message(e))
		if found++; e.lane == a.Lane && found >= min(a.Max, 2) && through == a.To && e.seq < a.To {
			through = e.seq
		}
	}
	return list, through
}

// check looks at the state after each step.
func (w *world) check() error {
	if w.wrong != nil {
		return w.wrong
	}
	l := w.p.lanes
	hand, bytes, open := 0, 0, 0
	for _, n := range l.lanes {
		open += n.places
		for i, m := range append([]*Message{n.head}, n.rest...) {
			if m == nil {
				continue
			}
			if m.Content != nil {
				hand++
				bytes += m.Size
			} else if i > 0 {
				return fmt.Errorf("message %d without content behind the first one", m.Seq)
			}
		}
	}
	for seq, k := range l.outcomes.kept {
		if !k.verdict.Sent {
			return fmt.Errorf("the verdict of message %d is kept although it can be made again", seq)
		}
	}
	limit := l.limits.Messages + 4*l.limits.Workers
	switch {
	case hand != l.memory.messages || bytes != l.memory.bytes || open != l.open || l.troubled < 0:
		return fmt.Errorf("counts: %d messages, %d bytes, %d open; want %d, %d, %d", l.memory.messages, l.memory.bytes, l.open, hand, bytes, open)
	case hand > limit || bytes > l.limits.Bytes+40*l.limits.Workers:
		return fmt.Errorf("%d messages, %d bytes in memory", hand, bytes)
	case open > l.limits.Workers:
		return fmt.Errorf("%d posts are open", open)
	case l.recording > max(1, l.limits.Workers/2) && !w.p.stopping:
		return fmt.Errorf("%d dead letters take workers", l.recording)
	case l.troubled > max(1, l.limits.Workers-1):
		return fmt.Errorf("%d lanes in trouble have places", l.troubled)
	}
	return nil
}
