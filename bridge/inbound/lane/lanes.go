package lane

import (
	"time"
)

// Odd is the lane of the messages that name no device. They cannot be read by a
// subject filter, which could match the messages of devices.
const Odd = ""

// Limits bound the lanes. All are required.
type Limits struct {
	// Workers is the largest number of posts in flight, together with the posted
	// messages that are not recorded yet.
	Workers int
	// Messages and Bytes bound the messages in memory. Four more for each worker
	// may be there while they are read.
	Messages, Bytes int
	// MaxAge is the age at which a message is given up.
	MaxAge time.Duration
	// Initial and Max bound the backoff between two tries of one message.
	Initial, Max time.Duration
	// Patience is the longest wait that is spent with messages in memory.
	Patience time.Duration
	// Pause is the time between two tries to record an outcome or to read.
	Pause time.Duration
	// Recent is how many recorded verdicts are remembered.
	Recent int
}

// troubled returns how many lanes in trouble may post at once while no other lane is ready.
func (l *Limits) troubled() int { return max(1, l.Workers-max(1, l.Workers/4)) }

// Message is one message of the stream. The lanes own the unexported fields; the
// caller owns the others, and may replace Note while it works on the message.
type Message struct {
	Seq  uint64
	At   time.Time // when the stream took it
	Lane string    // the device, or Odd
	Size int       // in memory
	// Content is the message itself. It is nil while the message is left to the
	// stream.
	Content any
	// Note is for the caller. It stays while the message is left to the stream.
	Note any

	verdict *Verdict
	again   bool // the verdict was recorded before
	retry   retry
}

// Verdict is the outcome of a message: posted or refused, and not yet recorded.
type Verdict struct {
	Posted bool // the API accepted it; otherwise it becomes a dead letter
	Sent   bool // it was sent to the API, so it must not be sent again
	Note   any  // the caller's, to record
}

// Kind is the kind of an [Action].
type Kind int

// The kinds of actions. Each is answered by one call.
const (
	// Post: post Message, and call [Lanes.Answered].
	Post Kind = iota
	// GiveUp: Message has reached MaxAge. Call [Lanes.Answered] with a verdict.
	GiveUp
	// Record: store Verdict, remove Message from the stream, and call
	// [Lanes.Recorded].
	Record
	// Read: read the messages of Lane in [From, To], at most Max of them, and
	// call [Lanes.Loaded].
	Read
)

// Action is one thing to do for a lane. The lane has no other action until this one is
// answered.
type Action struct {
	Kind    Kind
	Message *Message // for Post, GiveUp and Record
	Verdict *Verdict // for Record
	Again   bool     // for Record: the verdict was recorded before

	Lane     string // for Read
	From, To uint64 // for Read; equal to ask for one message by its sequence
	Max      int    // for Read
}

type state int

const (
	idle    state = iota // between two steps
	queued               // in one of the queues
	busy                 // an action is in progress
	waiting              // until a time
	parked               // until the API is back
)

// lane is the state of one lane.
type lane struct {
	key   string
	state state
	head  *Message   // the first message, if it is known
	rest  []*Message // the next ones, with their contents
	// next and last bound the sequences of the messages behind rest, which are
	// left to the stream; both are 0 if there are none. left counts them.
	next, last uint64
	left       int

	places int       // of Limits.Workers that the action under way takes
	letter bool      // the action under way counts as recording a dead letter
	wakes  time.Time // while it waits or is parked
	index  int       // in the timers; -1 if it is not there
	cause  Cause     // why it waits
}

// Lanes is the state of all lanes. Make it with [New]. It is not safe for
// concurrent use.
type Lanes struct {
	limits Limits
	lanes  map[string]*lane
	pos    uint64 // the last sequence that was delivered

	results queue // lanes with a first message that was posted
	letters queue // lanes with a first message that becomes a dead letter
	fresh   queue // lanes with a first message that was not tried yet
	retries queue // lanes with a first message that failed
	parks   parks // lanes that wait for the API
	timers  timers

	memory       memory
	open         int // posts under way, and posted messages that are not recorded
	troubled     int // posts under way of lanes in trouble
	recording    int // dead letters that are being recorded, or read for that
	healthyPosts int // posts of healthy lanes since the last one of a lane in trouble

	down     bool      // the API is down
	gate     time.Time // no probe before this time while the API is down
	stopping bool

	outcomes outcomes
}

// New returns lanes without messages.
func New(limits Limits) *Lanes {
	return &Lanes{limits: limits, lanes: make(map[string]*lane), outcomes: newOutcomes(limits.Recent)}
}

// Position returns the last sequence that was delivered.
func (l *Lanes) Position() uint64 { return l.pos }

// WantsMessages reports whether to deliver the next messages of the stream. It is false
// while enough lanes are ready, or wait for the API without a try.
func (l *Lanes) WantsMessages() bool {
	return !l.stopping && l.results.len()+l.fresh.len()+l.parks[0].len() < 2*l.limits.Workers
}

// Deliver takes the next message of the stream. Sequences must rise; a message
// that was delivered before is ignored.
func (l *Lanes) Deliver(m *Message) {
	if m.Seq <= l.pos {
		return
	}
	l.pos = m.Seq
	l.outcomes.delivered(m)
	n := l.lanes[m.Lane]
	if n == nil {
		n = &lane{key: m.Lane, index: -1}
		l.lanes[m.Lane] = n
	}
	switch {
	case n.last != 0:
		n.last = m.Seq
		n.left++
	case n.head == nil && n.state == idle:
		l.hold(n, m, l.room(n, m))
	case l.room(n, m) && l.holds(n):
		l.hold(n, m, true)
	default:
		n.next, n.last, n.left = m.Seq, m.Seq, 1
	}
	if n.state == idle {
		l.enqueue(n, false)
	}
}

// room reports whether a lane may keep one more message in memory. One lane gets
// a quarter of the room that is left, so that no lane fills the memory.
func (l *Lanes) room(n *lane, m *Message) bool {
	share := max(4, (l.limits.Messages-l.memory.messages)/4)
	return len(n.rest) < share && l.memory.messages < l.limits.Messages && l.memory.bytes+m.Size <= l.limits.Bytes
}

// holds reports whether a lane in its present state keeps new messages in memory.
func (l *Lanes) holds(n *lane) bool {
	switch n.state {
	case parked:
		return false
	case waiting:
		return n.head != nil && n.head.Content != nil && l.memory.messages <= l.limits.Messages/2
	}
	return true
}

// hold gives a lane a message, with its content if keep is set.
func (l *Lanes) hold(n *lane, m *Message, keep bool) {
	m.verdict, m.again = l.outcomes.recall(m)
	if !keep {
		m.Content = nil
	}
	l.memory.keep(m)
	if n.head == nil {
		n.head = m
	} else {
		n.rest = append(n.rest, m)
	}
}

// memory counts the messages in memory.
type memory struct{ messages, bytes int }

// keep counts a message that has its content.
func (y *memory) keep(m *Message) {
	if m.Content != nil {
		y.messages++
		y.bytes += m.Size
	}
}

// drop forgets the content of a message.
func (y *memory) drop(m *Message) {
	if m != nil && m.Content != nil {
		m.Content = nil
		y.messages--
		y.bytes -= m.Size
	}
}

// spill drops the messages of a lane from memory and leaves them to the stream, except
// the first message.
func (l *Lanes) spill(n *lane) {
	if len(n.rest) == 0 {
		return
	}
	if n.last == 0 {
		n.last = n.rest[len(n.rest)-1].Seq
	}
	n.next = n.rest[0].Seq
	n.left += len(n.rest)
	for _, m := range n.rest {
		l.outcomes.restore(m)
		l.memory.drop(m)
	}
	n.rest = nil
}

// Loaded answers [Read]: the messages of the lane that were found, in rising
// order, and the sequence through which the range was read.
func (l *Lanes) Loaded(now time.Time, a Action, messages []*Message, through uint64, err error) {
	n := l.lanes[a.Lane]
	if n == nil || n.state != busy {
		return
	}
	n.state = idle
	l.recorded(n)
	if err != nil {
		l.wait(n, now, l.limits.Pause, Other)
		return
	}
	if n.head != nil { // its content was asked for
		l.reloaded(n, messages)
	} else {
		l.refill(n, messages, min(through, a.To))
	}
	if n.head == nil && n.last == 0 {
		delete(l.lanes, n.key)
		return
	}
	// In front, so that these messages are used before more are read.
	l.enqueue(n, true)
}

// reloaded gives the first message its content. If the message is not in the
// stream any more, an operator removed it, or its outcome was recorded and the
// answer to that was lost.
func (l *Lanes) reloaded(n *lane, messages []*Message) {
	if len(messages) == 0 || messages[0].Seq != n.head.Seq || !messages[0].At.Equal(n.head.At) {
		l.outcomes.recorded(n.head)
		l.leave(n)
		return
	}
	n.head.Content, n.head.Size = messages[0].Content, messages[0].Size
	l.memory.keep(n.head)
}

// refill takes messages that were left to the stream, which was read through a
// sequence.
func (l *Lanes) refill(n *lane, messages []*Message, through uint64) {
	for i, m := range messages {
		if m.Seq < n.next || m.Seq > through || m.Lane != n.key {
			continue
		}
		if i > 0 && !l.room(n, m) {
			through = m.Seq - 1
			break
		}
		l.hold(n, m, true)
		n.left = max(n.left-1, 0)
	}
	if n.next = max(n.next, through+1); n.next > n.last {
		n.next, n.last, n.left = 0, 0, 0
	}
}

// leave removes the first message of a lane.
func (l *Lanes) leave(n *lane) {
	l.memory.drop(n.head)
	n.head = nil
	if len(n.rest) > 0 {
		n.head = n.rest[0]
		n.rest[0] = nil
		if n.rest = n.rest[1:]; len(n.rest) == 0 {
			n.rest = nil
		}
	}
}

// settle removes a lane without messages, and enqueues any other.
func (l *Lanes) settle(n *lane) {
	if n.head == nil && n.last == 0 {
		delete(l.lanes, n.key)
		return
	}
	l.enqueue(n, false)
}
