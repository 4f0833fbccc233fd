package inbound

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"plaspy-bridge/bridge/inbound/message"

	"github.com/nats-io/nats.go/jetstream"
)

// limits bound what the consumer holds.
type limits struct {
	hand       int           // messages in memory
	bytes      int           // of those messages
	fetch      int           // messages in one pull
	ackPending int           // deliveries that the server keeps account of
	lanes      int           // lanes that a look at the stream may open
	ackWait    time.Duration // after which the server delivers again
	patience   time.Duration // a longer wait is not spent with messages in hand
	handBack   time.Duration // delay of what is handed back
	pull       time.Duration // the longest a pull waits for messages
}

var defaultLimits = limits{
	hand: 2048, bytes: 32 << 20, fetch: 256, ackPending: 8192, lanes: 4096,
	ackWait: 30 * time.Second, patience: 5 * time.Second, handBack: 15 * time.Minute, pull: 5 * time.Second,
}

// errAgain ends a run of the consumer that has lost track of what the server
// delivered. The next one begins with the first message of the stream.
var errAgain = errors.New("deliveries are out of step")

// desk is what one run of the consumer knows: the lanes and who works on them.
type desk struct {
	c      *Consumer
	stream *stream
	pulls  jetstream.Consumer
	valid  func() bool // the lease is held
	posts  context.Context
	stop   context.CancelCauseFunc // ends the run; what is under way finishes
	ended  atomic.Bool             // no post may start any more
	open   atomic.Int64            // posts under way, and those that are not recorded yet

	ready  chan struct{} // one token for each lane that was queued, as far as it has room
	hungry chan struct{} // workers run out of lanes
	gate   chan struct{} // lanes are parked, or the circuit closed

	settlings chan *settling

	mu        sync.Mutex
	lanes     map[string]*lane
	queue     []*lane // ready, first in first out
	parked    []*lane
	tails     int    // lanes whose tail is in the stream
	waiting   int    // lanes that wait
	hand      int    // messages in memory
	bytes     int    // of those messages
	delivered uint64 // highest stream sequence that the consumer delivered
	counted   uint64 // consumer sequence of the last delivery
	// beyond is the highest sequence that was finished without the consumer's
	// having delivered it for sure: what it delivers up to there may be gone.
	beyond uint64
}

func newDesk(c *Consumer, st *stream) *desk {
	return &desk{
		c: c, stream: st, lanes: make(map[string]*lane),
		ready:  make(chan struct{}, c.opt.Workers),
		hungry: make(chan struct{}, 1),
		gate:   make(chan struct{}, 1),

		settlings: make(chan *settling, c.opt.Workers),
	}
}

// take puts one delivery where it belongs. It is called by the reader alone, in
// the order of delivery.
func (d *desk) take(ctx context.Context, msg jetstream.Msg) error {
	meta, err := msg.Metadata()
	if err != nil {
		return fmt.Errorf("read delivery: %w", err)
	}
	d.mu.Lock()
	counted := d.counted
	d.mu.Unlock()
	if meta.Sequence.Consumer != counted+1 {
		// Something was delivered that never came here: a message without
		// which no later one of its device may be posted.
		return fmt.Errorf("%w: delivery %d after %d", errAgain, meta.Sequence.Consumer, counted)
	}
	a := message.AddressOf(d.c.opt.Subjects, msg.Subject())
	m := &item{delivery: msg, Message: message.Message{
		Seq: meta.Sequence.Stream, At: meta.Timestamp, Subject: msg.Subject(), Address: a, Header: msg.Headers(), Body: msg.Data(),
	}}
	known, again := d.place(a, m, meta.NumDelivered > 1)
	if known {
		return nil
	}
	// The message may have been finished by a lane that read it from the stream
	// while this delivery was on its way. What is finished is gone.
	there, err := d.stream.exists(ctx, m.Seq)
	switch {
	case err != nil:
		return err
	case there && again:
		return fmt.Errorf("%w: message %d comes again and is in no lane", errAgain, m.Seq)
	case there:
		d.mu.Lock()
		defer d.mu.Unlock()
		d.append(a, m)
	}
	return nil
}

// place finds the lane of a delivery. known is false where the message may be
// finished already.
func (d *desk) place(a message.Address, m *item, again bool) (known, repeated bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.counted++
	fresh := m.Seq > d.delivered
	d.delivered = max(d.delivered, m.Seq)
	l := d.lanes[a.Lane]
	if l != nil {
		if held := l.holds(m.Seq); held != nil {
			held.delivery = m.delivery
			return true, again
		}
		if m.Seq <= l.done {
			return true, again // finished while it was on its way
		}
		if l.tail && m.Seq >= l.next {
			d.handBack(l, m)
			return true, again
		}
	}
	if again || !fresh || m.Seq <= d.beyond {
		return false, again || !fresh
	}
	d.append(a, m)
	return true, again
}

// append gives a lane one more message, or hands it back where the lane has as
// many as it may: a device with a long backlog must not fill the memory, nor
// keep the reader from what lies behind it. d.mu is held.
func (d *desk) append(a message.Address, m *item) {
	l := d.lane(a)
	lim := &d.c.limits
	if !l.tail {
		share := max(4, (lim.hand-d.hand)/4)
		if len(l.hand) >= share || d.hand >= lim.hand || d.bytes+m.Size() > lim.bytes && d.hand > 0 {
			l.tail, l.next = true, m.Seq
			d.tails++
		}
	}
	if l.tail {
		d.handBack(l, m)
	} else {
		d.hold(l, m)
		d.c.carry(m)
	}
	if l.state == laneIdle {
		d.enqueue(l)
	}
}

// handBack leaves a delivered message to the stream, from which its lane will
// read it in its turn. d.mu is held.
func (d *desk) handBack(l *lane, m *item) {
	l.known = max(l.known, m.Seq)
	l.handed++
	if m.delivery != nil {
		d.c.told("hand back", m.delivery.NakWithDelay(d.c.limits.handBack))
	}
}

// lane returns the lane of an address. d.mu is held.
func (d *desk) lane(a message.Address) *lane {
	l := d.lanes[a.Lane]
	if l == nil {
		l = &lane{Address: a}
		d.lanes[a.Lane] = l
	}
	return l
}

// hold takes a message in hand. d.mu is held.
func (d *desk) hold(l *lane, m *item) {
	l.hand = append(l.hand, m)
	d.hand++
	d.bytes += m.Size()
}

// drop lets the first message of a lane go. d.mu is held.
func (d *desk) drop(l *lane) {
	d.hand--
	d.bytes -= l.hand[0].Size()
	l.hand[0] = nil
	if l.hand = l.hand[1:]; len(l.hand) == 0 {
		l.hand = nil
	}
}

// enqueue makes a lane ready for a worker. d.mu is held.
func (d *desk) enqueue(l *lane) {
	l.state = laneReady
	d.queue = append(d.queue, l)
	select {
	case d.ready <- struct{}{}:
	default: // as many tokens as workers are there: each will look
	}
}

// dequeue gives a worker the next lane, nil where there is none.
func (d *desk) dequeue() *lane {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.queue) == 0 {
		d.signal(d.hungry)
		return nil
	}
	l := d.queue[0]
	d.queue[0] = nil
	d.queue = d.queue[1:]
	l.state = laneBusy
	if d.runnable() < 2*d.c.opt.Workers {
		d.signal(d.hungry)
	}
	return l
}

// runnable counts the lanes that need no more than a worker, or the API to come
// back. d.mu is held.
func (d *desk) runnable() int { return len(d.queue) + len(d.parked) }

func (d *desk) signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// finished lets the first message of a lane go for good.
func (d *desk) finished(l *lane, m *item) {
	if m.posted {
		d.open.Add(-1)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drop(l)
	l.done = max(l.done, m.Seq)
	if m.delivery == nil {
		d.beyond = max(d.beyond, m.Seq)
	}
	l.trial = nil
	d.rest(l)
}

// rest decides what a lane does after a step. d.mu is held.
func (d *desk) rest(l *lane) {
	if len(l.hand) == 0 && !l.tail {
		l.state = laneIdle
		delete(d.lanes, l.Lane)
		return
	}
	d.enqueue(l)
}

// load returns the first message of a lane, from the stream where none is in
// hand. It is nil where the lane has no more.
func (d *desk) load(ctx context.Context, l *lane) (*item, error) {
	d.mu.Lock()
	m, tail, next, known, handed := l.head(), l.tail, l.next, l.known, l.handed
	d.mu.Unlock()
	if m != nil || !tail {
		return m, nil
	}
	m, err := d.stream.next(ctx, l.Filter, next)
	if err != nil {
		return nil, err
	}
	if m == nil && known >= next {
		// Whoever delivered it had it; the leader has to, or it was deleted.
		if there, err := d.stream.exists(ctx, known); err != nil || there {
			return nil, errors.Join(err, errNotYet)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if m != nil {
		m.Address = message.AddressOf(d.c.opt.Subjects, m.Subject)
		l.next = m.Seq + 1
		d.hold(l, m)
		d.c.carry(m)
		return m, nil
	}
	if l.handed == handed {
		l.tail = false
		d.tails--
	}
	return nil, nil
}

// errNotYet tells that the stream's leader does not show a message that was
// delivered.
var errNotYet = errors.New("message was delivered but cannot be read yet")

// pause makes a lane wait. A wait that is long, or that too much memory is
// spent on, is spent without messages in hand.
func (d *desk) pause(l *lane, why cause, wait time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if wait <= 0 {
		d.enqueue(l)
		return
	}
	head := l.head()
	settled := head == nil || head.outcome != nil
	if !settled && (wait > d.c.limits.patience || d.hand > d.c.limits.hand/2) {
		d.unhand(l)
	}
	l.state, l.wait = laneWaiting, why
	d.waiting++
	l.timer = time.AfterFunc(wait, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.wake(l)
	})
	if d.runnable() == 0 {
		d.signal(d.hungry)
	}
}

// unhand gives up what a lane has in hand; it reads it again from the stream.
// d.mu is held.
func (d *desk) unhand(l *lane) {
	if !l.tail {
		l.tail = true
		d.tails++
	}
	l.next = l.hand[0].Seq
	for len(l.hand) > 0 {
		d.handBack(l, l.hand[0])
		d.drop(l)
	}
}

// wake ends a lane's wait. d.mu is held.
func (d *desk) wake(l *lane) {
	if l.state != laneWaiting {
		return
	}
	l.timer.Stop()
	l.timer = nil
	d.waiting--
	d.enqueue(l)
}

// close stops the timers and returns the messages that were posted or given up
// but not yet recorded: another run must not post them again.
func (d *desk) close() []*item {
	d.mu.Lock()
	defer d.mu.Unlock()
	var left []*item
	for _, l := range d.lanes {
		if l.timer != nil {
			l.timer.Stop()
		}
		l.state = laneIdle
		l.endSpan("", "stopped")
		for _, m := range l.hand {
			if m.outcome != nil {
				left = append(left, m)
			}
		}
	}
	return left
}
