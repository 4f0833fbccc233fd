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

// flight is a chain in flight. At most one of its events is sent at a time.
type flight struct {
	events []*Event
	next   int
	done   func(error)

	failed  int       // consecutive failures of the next event
	since   time.Time // of the first of them
	due     time.Time // of the next try
	refused int       // number of failures that were refusals of this very event
	err     error     // the last failure
}

// flights holds the flights with a sent event, by its message.
type flights struct {
	mu           sync.Mutex
	byMsg        map[*nats.Msg]*flight
	waitingSince time.Time // of the last answer, or of the first event sent after all were answered
	closed       bool      // no further flight may start
}

// reply is the outcome of a flight's sent event.
type reply struct {
	f        *flight
	ack      *jetstream.PubAck
	err      error
	lastRead bool    // the subject's last message was read, after ack or refusal arrived
	last     *Stored // the subject's last message, if lastRead
	refusal  error
}

const (
	// maxRefusals is the number of refusals, while others are stored, after which an
	// event is given up.
	maxRefusals = 5
	readTimeout = 3 * time.Second
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
		p.flights.waitingSince = time.Now()
	}
	p.flights.byMsg[e.msg] = f
	p.flights.mu.Unlock()
	if _, err := p.js.PublishMsgAsync(e.msg); err != nil {
		p.answered(e.msg, nil, err)
	}
	return true
}

// expect returns the fence of the flight's next event: the sequence of an earlier
// event of the chain on the same subject, or else the sequence that the caller set.
func (f *flight) expect() uint64 {
	e := f.events[f.next]
	for i := f.next - 1; i >= 0; i-- {
		if f.events[i].Subject == e.Subject {
			return f.events[i].Seq
		}
	}
	return e.Expect
}

// answered runs on the client's goroutines, once for every send. It never blocks,
// because replies has room for every flight: a flight is in flights, in replies, in
// readLast or in retries, and never in two of them.
func (p *Publisher) answered(m *nats.Msg, ack *jetstream.PubAck, err error) {
	p.flights.mu.Lock()
	defer p.flights.mu.Unlock()
	p.flights.waitingSince = time.Now()
	if f := p.flights.byMsg[m]; f != nil {
		delete(p.flights.byMsg, m)
		p.replies <- reply{f: f, ack: ack, err: err}
	}
}

func (p *Publisher) handle(ctx context.Context, r reply) {
	if r.lastRead {
		p.identity.asked = false
	}
	switch {
	case r.lastRead && r.err == nil:
		p.found(r)
	case r.lastRead && r.ack != nil && p.identity.ours(r.ack) && !r.ack.Duplicate:
		p.stored(r.f, r.ack.Sequence, false) // only the domain was missing, and the read may be forbidden
	case r.err != nil:
		p.failed(ctx, r)
	case !p.identity.ours(r.ack):
		if p.identity.unknown(r.ack) {
			p.log.Warn("another stream captures the event subjects and rejects most events; copy events with sources or a mirror instead",
				"stream", r.ack.Stream, "domain", r.ack.Domain)
		}
		p.readLast(ctx, r)
	case r.ack.Duplicate:
		p.readLast(ctx, r)
	case p.identity.domain == nil && !p.identity.asked:
		p.identity.asked = true
		p.readLast(ctx, r)
	default:
		p.stored(r.f, r.ack.Sequence, false)
	}
}

// failed handles an event that was not stored according to its answer.
func (p *Publisher) failed(ctx context.Context, r reply) {
	switch judge(r.err) {
	case fenced:
		p.readLast(ctx, r)
	case never:
		if errors.Is(r.err, nats.ErrMaxPayload) { // the client's own error
			p.giveUp(r.f, r.err)
			return
		}
		p.readLast(ctx, r) // another stream may have refused it
	case refused:
		r.f.refused++
		if r.f.refused >= maxRefusals && p.LastAck().After(r.f.since) {
			p.giveUp(r.f, r.err)
			return
		}
		p.retryLater(r.f, r.err)
	default:
		p.retryLater(r.f, r.err)
	}
}

// readLast reads the subject's last message from the stream's leader. The result
// arrives as a reply.
func (p *Publisher) readLast(ctx context.Context, r reply) {
	f := r.f
	p.reads.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, readTimeout)
		defer cancel()
		last, err := p.Last(ctx, f.events[f.next].Subject)
		p.replies <- reply{f: f, err: err, lastRead: true, last: last, refusal: r.err, ack: r.ack}
	})
}

// found decides by the subject's last message.
func (p *Publisher) found(r reply) {
	e := r.f.events[r.f.next]
	switch {
	case r.last != nil && r.last.ID == e.ID:
		fresh := r.ack != nil && p.identity.ours(r.ack) && r.ack.Sequence == r.last.Seq && !r.ack.Duplicate
		if fresh && p.identity.domain == nil {
			p.identity.domain = &r.ack.Domain
		}
		p.stored(r.f, r.last.Seq, !fresh)
	case r.refusal != nil && judge(r.refusal) == never && r.f.refused > 0:
		p.giveUp(r.f, r.refusal)
	case r.refusal != nil && judge(r.refusal) == never && lastSeq(r.last) == e.Expect:
		r.f.refused++ // another stream may have answered first
		p.retryLater(r.f, r.refusal)
	case lastSeq(r.last) != e.Expect:
		p.streamAnswered()
		p.finish(r.f, &Conflict{Event: e, Last: r.last})
	case r.ack != nil && p.identity.ours(r.ack) && r.ack.Duplicate:
		// The stream remembers the id of a purged message. Publish the event again with
		// a new id.
		e.content++
		e.ID = ""
		p.send(r.f)
	case r.ack != nil:
		p.retryLater(r.f, fmt.Errorf("the stream %s of domain %q answered, and %s does not hold the event", r.ack.Stream, r.ack.Domain, p.subjects.Events()))
	default:
		p.retryLater(r.f, errors.New("the stream's sequences are changing"))
	}
}

func (p *Publisher) stored(f *flight, seq uint64, found bool) {
	e := f.events[f.next]
	e.Seq = seq
	p.metrics.stored(e)
	p.lastAck.Store(time.Now().UnixNano())
	p.reader.history.acknowledged(seq)
	p.unstorable.stored(e)
	p.streamAnswered()
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
		p.streamAnswered()
	}
	p.finish(f, fmt.Errorf("publish to %s: %w: %w", e.Subject, ErrUnstorable, err))
}

// streamAnswered records that the stream stores events. Flights that wait for that
// are sent again now, except those with an event that was refused itself.
func (p *Publisher) streamAnswered() {
	if p.trouble.Swap(nil) != nil {
		p.log.Info("publishing works again", "count", p.retries.failed)
	}
	p.retries.answered(time.Now())
}

// retryLater schedules the next attempt of a flight, and logs the cause.
func (p *Publisher) retryLater(f *flight, err error) {
	p.metrics.errors.Inc()
	own := f.refused > 0 // only this event has trouble while others are stored
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

// retries holds the flights that wait for another attempt. Each flight has its own
// delay. A flight that failed for a shared reason is sent again as soon as the stream
// answers.
type retries struct {
	list   []*flight
	failed int // failures since the stream last answered
}

// add schedules the next attempt of a flight.
func (r *retries) add(f *flight, now time.Time) {
	if f.failed == 0 {
		f.since = now
	}
	f.failed++
	f.due = now.Add(min(minRetry<<min(f.failed-1, 10), maxRetry))
	r.failed++
	r.list = append(r.list, f)
}

// answered makes the flights due that failed for a shared reason.
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

// identity recognizes the answers of the events stream among those of other streams
// that capture its subjects. Each event carries a fence for the events stream, so such
// a copy rejects most events.
type identity struct {
	stream  string
	domain  *string         // the JetStream domain of the stream, once it is known
	asked   bool            // a read that shows the domain is in flight
	foreign map[string]bool // streams that unknown has seen
}

// ours reports whether an answer is from the events stream. Until the domain is known,
// a stream of that name in another domain cannot be told apart by its answer.
func (i *identity) ours(ack *jetstream.PubAck) bool {
	return ack.Stream == i.stream && (i.domain == nil || ack.Domain == *i.domain)
}

// maxForeign bounds the memory of unknown.
const maxForeign = 16

// unknown reports whether an answer is the first one of a foreign stream.
func (i *identity) unknown(ack *jetstream.PubAck) bool {
	name := ack.Domain + "/" + ack.Stream
	if i.foreign[name] || len(i.foreign) >= maxForeign {
		return false
	}
	i.foreign[name] = true
	return true
}

// unstorable records the events that can never be stored, for the bridge's health.
// It is safe for concurrent use.
type unstorable struct {
	mu       sync.Mutex
	ever     bool              // a location was stored since the start
	subjects map[string]string // reasons by subject, of locations that were refused since one was stored
	logged   map[string]uint64 // hash of the last logged event, by subject
}

const (
	// manyRefused is the number of devices with consecutively refused locations after
	// which the stream counts as unfit instead of the events.
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

// refused records an event and reports whether it should be logged, which is once
// for the same event.
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

// state returns the reason why no location can be stored, or why some cannot.
func (u *unstorable) state() (down, degraded string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for subject, why := range u.subjects {
		if !u.ever || len(u.subjects) >= manyRefused {
			return fmt.Sprintf("locations cannot be stored: that of %s was refused (%s)", subject, why), ""
		}
		return "", fmt.Sprintf("the location of %s cannot be stored (%s)", subject, why)
	}
	return "", ""
}
