package lane

import (
	"errors"
	"fmt"
	"slices"
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

// events lists what may happen now.
func (w *world) events() []event {
	var list []event
	add := func(name string, do func() error) { list = append(list, event{name, do}) }
	l := w.p.lanes
	if w.left > 0 && w.random {
		add("publish", func() error { w.publish(w.lanes[w.choose(len(w.lanes), "lane")]); return nil })
	}
	if e := w.unread(); e != nil && l.Appetite() && !w.cut {
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

func (w *world) circuit() {
	if w.down {
		w.p.lanes.Down(w.gate)
	} else {
		w.p.lanes.Up()
		w.p.next = map[uint64]time.Time{}
	}
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

// finish stores what became of a message and removes it.
func (w *world) finish(a Action) {
	e := w.stream[a.Message.Seq-1]
	if e.there {
		e.there, e.finished = false, true
		e.results++
	}
}

// abandon ends what is under way without an answer.
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

// stop is a graceful stop: what was sent is answered and recorded, and the next
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
	limit := l.limits.Hand + 3*l.limits.Workers
	switch {
	case hand != l.memory.messages || bytes != l.memory.bytes || open != l.open || l.troubled < 0:
		return fmt.Errorf("counts: %d messages, %d bytes, %d open; want %d, %d, %d", l.memory.messages, l.memory.bytes, l.open, hand, bytes, open)
	case hand > limit || bytes > l.limits.Bytes+30*l.limits.Workers:
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

// weighted makes work more frequent than faults.
func weighted(list []event) (more []event) {
	for _, e := range list {
		weight := map[string]int{"publish": 6, "deliver": 20, "next": 20, "complete": 20, "tick": 4}[e.name]
		for range max(1, weight) {
			more = append(more, e)
		}
	}
	return more
}

// run makes a history and then lets everything end well.
func (w *world) run(steps int) error {
	for range steps {
		list := w.events()
		if w.random {
			list = weighted(list)
		}
		e := list[w.choose(len(list), "event")]
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

// finishAll goes on until the messages that count are finished.
func (w *world) finishAll(counts func(*entry) bool) error {
	for range 200 * (len(w.stream) + 5) {
		done := true
		for _, e := range w.stream {
			// What the server forgot it removed is seen by the next process.
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
		if e := w.unread(); e != nil && w.p.lanes.Appetite() {
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
			if e := w.unread(); at.IsZero() && (e == nil || !w.p.lanes.Appetite()) && !done {
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

// reread begins again for what the server forgot it removed.
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
