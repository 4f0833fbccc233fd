package publisher

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// flight is a chain on its way. At most one of its events is in flight at a time.
type flight struct {
	events []*Event
	next   int
	done   func(error)

	failed  int       // consecutive failures of the next event
	since   time.Time // of the first of them
	due     time.Time // of the next try
	refused int       // how many of them were refusals of this very event
	err     error     // the last failure
}

// flights are the flights whose event is out, by its message.
type flights struct {
	mu     sync.Mutex
	byMsg  map[*nats.Msg]*flight
	owed   time.Time // since when there have been flights without any answer
	closed bool      // no flight may start any more
}

// reply is the outcome of the event that a flight has out.
type reply struct {
	f       *flight
	ack     *jetstream.PubAck
	err     error
	looked  bool    // the subject's last message was read, after ack or refusal came
	last    *Stored // it
	refusal error
}

const (
	// maxRefusals is how often an event is refused, while others are stored,
	// before it is given up.
	maxRefusals = 5
	lookTimeout = 3 * time.Second
)

// send sends the flight's next event. It returns false if the publisher has
// stopped.
func (p *Publisher) send(f *flight) bool {
	e := f.events[f.next]
	if e.ID == "" {
		e.stamp(f.expect())
		e.sent = time.Now()
	}
	p.flights.mu.Lock()
	if p.flights.closed {
		p.flights.mu.Unlock()
		return false
	}
	if len(p.flights.byMsg) == 0 {
		p.flights.owed = time.Now()
	}
	p.flights.byMsg[e.msg] = f
	p.flights.mu.Unlock()
	if _, err := p.js.PublishMsgAsync(e.msg); err != nil {
		p.answered(e.msg, nil, err)
	}
	return true
}

// expect is the fence of the flight's next event: the sequence of an earlier event
// of the chain on the same subject, or else the one that its author set.
func (f *flight) expect() uint64 {
	e := f.events[f.next]
	for i := f.next - 1; i >= 0; i-- {
		if f.events[i].Subject == e.Subject {
			return f.events[i].Seq
		}
	}
	return e.Expect
}

// answered runs on the client's goroutines, once for every send. There is room
// in replies for everything that can be out: a flight is in flights, in replies,
// looked for or waiting, and never in two of them.
func (p *Publisher) answered(m *nats.Msg, ack *jetstream.PubAck, err error) {
	p.flights.mu.Lock()
	defer p.flights.mu.Unlock()
	p.flights.owed = time.Now()
	if f := p.flights.byMsg[m]; f != nil {
		delete(p.flights.byMsg, m)
		p.replies <- reply{f: f, ack: ack, err: err}
	}
}

func (p *Publisher) handle(ctx context.Context, r reply) {
	if r.looked {
		p.homing = false
	}
	switch {
	case r.looked && r.err == nil:
		p.found(r)
	case r.looked && r.ack != nil && p.ours(r.ack) && !r.ack.Duplicate:
		p.stored(r.f, r.ack.Sequence, false) // the look was for the domain only, and may be forbidden
	case r.err != nil:
		p.failed(ctx, r)
	case !p.ours(r.ack):
		p.foreign(r.ack)
		p.look(ctx, r)
	case r.ack.Duplicate:
		p.look(ctx, r)
	case p.home == nil && !p.homing:
		p.homing = true
		p.look(ctx, r)
	default:
		p.stored(r.f, r.ack.Sequence, false)
	}
}

// ours reports whether an answer is the events stream's. Until its domain is known,
// one of its name in another domain cannot be distinguished by the answer alone.
func (p *Publisher) ours(ack *jetstream.PubAck) bool {
	return ack.Stream == p.subjects.Events() && (p.home == nil || ack.Domain == *p.home)
}

// failed handles an event that was not stored, as far as the answer says.
func (p *Publisher) failed(ctx context.Context, r reply) {
	switch judge(r.err) {
	case fenced:
		p.look(ctx, r)
	case never:
		if errors.Is(r.err, nats.ErrMaxPayload) { // the client's own word
			p.giveUp(r.f, r.err)
			return
		}
		p.look(ctx, r) // another stream may have refused it
	case refused:
		r.f.refused++
		if r.f.refused >= maxRefusals && p.LastAck().After(r.f.since) {
			p.giveUp(r.f, r.err)
			return
		}
		p.doubt(r.f, r.err)
	default:
		p.doubt(r.f, r.err)
	}
}

// look asks the stream's leader for the subject's last message. The answer comes
// back as a reply.
func (p *Publisher) look(ctx context.Context, r reply) {
	f := r.f
	p.looks.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, lookTimeout)
		defer cancel()
		last, err := p.Last(ctx, f.events[f.next].Subject)
		p.replies <- reply{f: f, err: err, looked: true, last: last, refusal: r.err, ack: r.ack}
	})
}

// found decides by the subject's last message.
func (p *Publisher) found(r reply) {
	e := r.f.events[r.f.next]
	switch {
	case r.last != nil && r.last.ID == e.ID:
		fresh := r.ack != nil && p.ours(r.ack) && r.ack.Sequence == r.last.Seq && !r.ack.Duplicate
		if fresh && p.home == nil {
			p.home = &r.ack.Domain
		}
		p.stored(r.f, r.last.Seq, !fresh)
	case r.refusal != nil && judge(r.refusal) == never && r.f.refused > 0:
		p.giveUp(r.f, r.refusal)
	case r.refusal != nil && judge(r.refusal) == never && lastSeq(r.last) == e.Expect:
		r.f.refused++ // another stream's answer may have come before this one's
		p.doubt(r.f, r.refusal)
	case lastSeq(r.last) != e.Expect:
		p.atWork()
		p.finish(r.f, &Conflict{Event: e, Last: r.last})
	case r.ack != nil && p.ours(r.ack) && r.ack.Duplicate:
		// The stream remembers an id whose message was purged. Published now, it
		// is new, under an id of its own.
		e.content++
		e.ID = ""
		p.send(r.f)
	case r.ack != nil:
		p.doubt(r.f, fmt.Errorf("the stream %s of domain %q answered, and %s does not hold the event", r.ack.Stream, r.ack.Domain, p.subjects.Events()))
	default:
		p.doubt(r.f, errors.New("the stream's sequences are moving"))
	}
}

// foreign logs, once for each, a stream that answers in place of the events
// stream. Each event carries a fence of the events stream, so that such a copy
// holds next to nothing.
func (p *Publisher) foreign(ack *jetstream.PubAck) {
	name := ack.Domain + "/" + ack.Stream
	if p.strangers[name] || len(p.strangers) >= maxStrangers {
		return
	}
	p.strangers[name] = true
	p.log.Warn("another stream captures the event subjects and rejects most events; copy events with sources or a mirror instead",
		"stream", ack.Stream, "domain", ack.Domain)
}

// maxStrangers bounds the memory of foreign.
const maxStrangers = 16

func (p *Publisher) stored(f *flight, seq uint64, found bool) {
	e := f.events[f.next]
	e.Seq = seq
	p.metrics.stored(e)
	p.lastAck.Store(time.Now().UnixNano())
	p.life.acknowledged(seq)
	p.unstorable.stored(e)
	p.atWork()
	f.next++
	f.failed, f.refused, f.err = 0, 0, nil
	switch {
	case f.next == len(f.events):
		p.finish(f, nil)
	case found:
		p.finish(f, ErrFound)
	default:
		p.send(f)
	}
}

// giveUp ends a chain at an event that can never be stored.
func (p *Publisher) giveUp(f *flight, err error) {
	e := f.events[f.next]
	p.metrics.errors.Inc()
	p.metrics.refused[e.kind].Inc()
	if p.unstorable.refused(e, err) {
		p.log.Error("event can never be stored", "err", reason(err), "subject", e.Subject)
	}
	if judge(err) != refused {
		p.atWork()
	}
	p.finish(f, fmt.Errorf("publish to %s: %w: %w", e.Subject, ErrTooLarge, err))
}

// atWork notes that the stream answers: it can be published to. What waits for
// that is sent again now, but for events that were refused themselves.
func (p *Publisher) atWork() {
	if p.trouble.Swap(nil) != nil {
		p.log.Info("publishing works again", "count", p.retries.failed)
	}
	p.retries.answered(time.Now())
}

// doubt has an event sent again later.
func (p *Publisher) doubt(f *flight, err error) {
	p.metrics.errors.Inc()
	own := f.refused > 0 // the trouble is this event's own as long as others are stored
	f.err = err
	p.retries.add(f, time.Now())
	if own && (judge(err) == never || time.Since(p.LastAck()) < late) {
		if f.refused == 2 {
			p.log.Warn("event was refused, retrying", "err", reason(err), "subject", f.events[f.next].Subject)
		}
		return
	}
	text := reason(err)
	if old := p.trouble.Swap(&text); old == nil || *old != text {
		p.log.Warn("publish failed, retrying", "err", text, "subject", f.events[f.next].Subject)
	}
}

func (p *Publisher) finish(f *flight, err error) {
	p.release()
	f.done(err)
}

func (p *Publisher) release() {
	<-p.window
	p.metrics.pending.Dec()
}

func lastSeq(s *Stored) uint64 {
	if s == nil {
		return 0
	}
	return s.Seq
}

const (
	minRetry = 100 * time.Millisecond
	maxRetry = 5 * time.Second
)

// retries are the flights whose event is to be sent again. The delay is each
// flight's own; one that failed for a reason that all share is sent again as soon
// as the stream answers.
type retries struct {
	list   []*flight
	failed int // failures since the stream last answered
}

// add plans the next try of a flight.
func (r *retries) add(f *flight, now time.Time) {
	if f.failed == 0 {
		f.since = now
	}
	f.failed++
	f.due = now.Add(min(minRetry<<min(f.failed-1, 10), maxRetry))
	r.failed++
	r.list = append(r.list, f)
}

// answered notes that the stream answers.
func (r *retries) answered(now time.Time) {
	if r.failed == 0 {
		return
	}
	r.failed = 0
	for _, f := range r.list {
		if f.refused == 0 {
			f.due = now
			f.failed = min(f.failed, 1)
		}
	}
}

// next returns how long to wait until a flight is due. ok is false if none is.
func (r *retries) next(now time.Time) (wait time.Duration, ok bool) {
	for i, f := range r.list {
		if d := f.due.Sub(now); i == 0 || d < wait {
			wait = d
		}
	}
	return max(wait, 0), len(r.list) > 0
}

// take removes the flights that are due.
func (r *retries) take(now time.Time) (due []*flight) {
	left := r.list[:0]
	for _, f := range r.list {
		if f.due.After(now) {
			left = append(left, f)
		} else {
			due = append(due, f)
		}
	}
	clear(r.list[len(left):])
	r.list = left
	return due
}

// unstorable counts the events that can never be stored, for the health of the
// bridge. It is safe for concurrent use.
type unstorable struct {
	mu       sync.Mutex
	ever     bool              // a location was stored since the start
	subjects map[string]string // of locations that were refused since one was stored, with the reason
	logged   map[string]uint64 // hash of the last refused event of a subject that was logged
}

const (
	// manyRefused is how many devices' locations are refused in a row before it
	// is the stream that counts as unfit, and not the events.
	manyRefused = 3
	maxLogged   = 10_000
)

func (u *unstorable) stored(e *Event) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.logged, e.Subject)
	if e.kind == kindLocation {
		u.ever = true
		clear(u.subjects)
	}
}

// refused notes an event and reports whether it is to be logged: the same event is
// logged once.
func (u *unstorable) refused(e *Event, err error) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if e.kind == kindLocation && len(u.subjects) < manyRefused {
		if u.subjects == nil {
			u.subjects = make(map[string]string)
		}
		u.subjects[e.Subject] = reason(err)
	}
	if hash, known := u.logged[e.Subject]; known && hash == e.content {
		return false
	}
	if u.logged == nil || len(u.logged) >= maxLogged {
		u.logged = make(map[string]uint64)
	}
	u.logged[e.Subject] = e.content
	return true
}

// state returns why no location can be stored at all, or else why some cannot.
func (u *unstorable) state() (down, degraded string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for subject, why := range u.subjects {
		if !u.ever || len(u.subjects) >= manyRefused {
			return fmt.Sprintf("locations cannot be stored: the one for %s was refused (%s)", subject, why), ""
		}
		return "", fmt.Sprintf("the location for %s cannot be stored (%s)", subject, why)
	}
	return "", ""
}
