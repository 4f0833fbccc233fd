package inbound

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"plaspy-bridge/bridge/inbound/echo"
	"plaspy-bridge/bridge/inbound/message"
	"plaspy-bridge/bridge/plaspy"
)

var errLease = errors.New("another replica may be posting")

const (
	settlePause = time.Second           // between tries to record an outcome
	notYetPause = 50 * time.Millisecond // until the leader shows what it delivered
)

// work is one worker: it takes lanes and does one step of each.
func (d *desk) work(ctx context.Context) {
	for {
		l := d.dequeue()
		if ctx.Err() != nil {
			return
		}
		if l != nil {
			d.step(ctx, l)
			continue
		}
		select {
		case <-d.ready:
		case <-ctx.Done():
			return
		}
	}
}

// step takes the first message of a lane as far as it goes: to its end, or to a
// wait.
func (d *desk) step(ctx context.Context, l *lane) {
	m, err := d.load(d.posts, l)
	switch {
	case errors.Is(err, errNotYet):
		d.pause(l, causeOther, notYetPause)
		return
	case err != nil:
		d.c.trouble.set(partStream, err)
		d.pause(l, causeOther, settlePause)
		return
	case m == nil:
		d.mu.Lock()
		d.rest(l)
		d.mu.Unlock()
		return
	}
	if m.outcome == nil && !d.decide(ctx, l, m) {
		return
	}
	for {
		if err = d.settle(m); err == nil {
			break
		}
		d.c.trouble.set(partStore, err)
		if ctx.Err() == nil {
			d.pause(l, causeOther, settlePause)
			return
		}
		// The run ends, and this is the last chance to record what was done.
		if !sleep(d.posts, settlePause/4) {
			return
		}
	}
	d.c.trouble.clear(partStore)
	result := resultDead
	if m.outcome.Posted() {
		result = resultPosted
	}
	if !m.counted {
		d.c.metrics.count(m.Address.Kind, result)
		m.counted = true
	}
	d.c.memory.add(m)
	l.endSpan(result, "")
	d.finished(l, m)
}

// decide posts a message or gives it up. It reports false where the message has
// to wait; the lane is then taken care of.
func (d *desk) decide(ctx context.Context, l *lane, m *item) bool {
	c := d.c
	a := m.Address
	if a.Kind == message.Unknown {
		return d.giveUp(l, m, a, "unknown subject: "+a.Reason, "")
	}
	f, err := message.Read(a.Kind, a.Device, m.Body)
	if err != nil {
		return d.giveUp(l, m, a, "invalid: "+err.Error(), "")
	}
	if time.Since(m.At) >= c.opt.MaxAge {
		return d.tooOld(l, m, a)
	}
	if d.ended.Load() {
		return false
	}
	if !d.valid() {
		d.stop(errLease)
		return false
	}
	if !d.begin() {
		d.pause(l, causeOther, settlePause/4)
		return false
	}
	defer func() {
		if !m.posted {
			d.open.Add(-1)
		}
	}()
	if !l.pass {
		if ok, _ := c.opt.Circuit.Allow(time.Now()); !ok {
			l.endSpan(resultRetried, causeOutage.String())
			d.park(l)
			return false
		}
	}
	l.pass = false
	m.posted = d.post(ctx, l, m, a, &f)
	return m.posted
}

// begin takes one of the places for posts that are under way or not recorded
// yet. There are as many as workers: while nothing can be recorded nothing more
// is posted, so that whoever takes over posts no more than that again.
func (d *desk) begin() bool {
	if int(d.open.Add(1)) <= d.c.opt.Workers {
		return true
	}
	d.open.Add(-1)
	return false
}

// errUnsent tells that a post was kept back.
var errUnsent = fmt.Errorf("post kept back: %w", context.Canceled)

// departure is a post on its way out. It may have to wait for the token and the
// budget, for minutes; the run's end ends that wait, and nothing that has been
// sent. Holding the lease is looked at once more when the wait is over: a process
// that was stopped meanwhile wakes with its turn come and its lease gone.
type departure struct {
	state  atomic.Int32 // atWait, and then one of the others for good
	cancel context.CancelFunc
}

const (
	atWait int32 = iota
	atSea
	atHome // kept back
)

// stay keeps the post back if it has not gone out.
func (p *departure) stay() {
	if p.state.CompareAndSwap(atWait, atHome) {
		p.cancel()
	}
}

// leave is asked when nothing is left but to send.
func (d *desk) leave(p *departure) error {
	if !d.valid() {
		p.stay()
		d.stop(errLease)
		return errUnsent
	}
	if p.state.CompareAndSwap(atWait, atSea) || p.state.Load() == atSea {
		return nil
	}
	return errUnsent
}

// post tries once.
func (d *desk) post(run context.Context, l *lane, m *item, a message.Address, f *message.Form) bool {
	c := d.c
	t := l.trialOf(m)
	d.beginSpan(m, t)
	ctx, cancel := context.WithCancel(t.span.In(d.posts))
	defer cancel()
	out := &departure{cancel: cancel}
	defer context.AfterFunc(run, out.stay)()
	// Age ends the wait alone: what has been sent may be taken any moment, and a
	// dead letter of it that is replayed would be posted twice.
	age := time.AfterFunc(time.Until(m.At.Add(c.opt.MaxAge)), out.stay)
	defer age.Stop()
	c.echo(a, f, (*echo.Tracker).Sending)
	id := m.ID(d.c.opt.Subjects)
	began := time.Now()
	answer, err := c.send(ctx, a, f.Body, plaspy.PostOptions{
		IdempotencyKey: message.IdempotencyKey(id), Before: func() error { return d.leave(out) },
	})
	if out.state.Load() == atHome {
		switch {
		case run.Err() != nil: // the run ends; the message stays where it is
		case !d.valid():
			d.stop(errLease)
		case time.Since(m.At) >= c.opt.MaxAge:
			return d.tooOld(l, m, a)
		default: // the wall clock was set back while the post waited
			d.pause(l, causeOther, settlePause)
		}
		return false
	}
	if tried(err) {
		t.count(began, answer.Status, err)
		c.demand.tried(time.Now())
		c.metrics.duration.Observe(time.Since(began).Seconds())
	}
	d.report(a, err)
	if err == nil {
		t.status = answer.Status
		decision := message.Decision{Response: answer.Body}
		if a.Kind == message.Location {
			decision.Fix = &f.Fix
		}
		c.echo(a, f, (*echo.Tracker).Taken)
		d.conclude(m, c.outcome(m, decision, t))
		if t.warned {
			c.log.Info("inbound message posted at last", "device_id", a.Device, "seq", m.Seq, "msg_id", id, "attempt", t.attempts)
		}
		return true
	}
	return d.failed(l, m, a, f, err)
}

// failed decides what becomes of a message after a try that failed.
func (d *desk) failed(l *lane, m *item, a message.Address, f *message.Form, err error) bool {
	c, t := d.c, l.trialOf(m)
	class := plaspy.Classify(err)
	switch {
	case class == plaspy.Canceled && d.posts.Err() != nil:
		return false // the run was cut off; the message stays where it is
	case time.Since(m.At) >= c.opt.MaxAge:
		return d.tooOld(l, m, a)
	case class == plaspy.Reject:
		c.echo(a, f, (*echo.Tracker).Refused)
		return d.giveUp(l, m, a, "rejected"+withStatus(t.status), t.detail)
	case class == plaspy.Forbidden && t.renewed:
		c.echo(a, f, (*echo.Tracker).Refused)
		return d.giveUp(l, m, a, "forbidden twice, with a token less than a minute old", t.detail)
	}
	c.metrics.count(a.Kind, resultRetried)
	why := causeOf(err)
	wait := t.delay(why, c.opt.BackoffInitial, c.opt.BackoffMax)
	if class == plaspy.Forbidden {
		t.renewed, wait = true, 0
		c.renew()
	}
	wait = max(wait, retryAfter(err))
	if t.attempts >= 3 && !t.warned {
		t.warned = true
		c.log.Warn("inbound message is not taken, trying on", "err", err, "device_id", a.Device, "seq", m.Seq,
			"msg_id", m.ID(d.c.opt.Subjects), "attempt", t.attempts, "delay", wait)
	}
	if wait > c.limits.patience {
		l.endSpan(resultRetried, why.String())
	}
	d.pause(l, why, min(wait, max(0, time.Until(m.At.Add(c.opt.MaxAge)))))
	return false
}

// echo notes in the echo tracker what happens to a location.
func (c *Consumer) echo(a message.Address, f *message.Form, note func(*echo.Tracker, string, message.Fix)) {
	if a.Kind == message.Location && c.opt.Echo != nil {
		note(c.opt.Echo, a.Token, f.Fix)
	}
}

func withStatus(status int) string {
	if status == 0 {
		return ""
	}
	return fmt.Sprintf(" with status %d", status)
}

func (d *desk) tooOld(l *lane, m *item, a message.Address) bool {
	t := l.trialOf(m)
	detail := t.detail
	if t.attempts == 0 {
		detail = "no try was answered"
	}
	return d.giveUp(l, m, a, fmt.Sprintf("too old: not delivered within %v", d.c.opt.MaxAge), detail)
}

// giveUp makes a dead letter of a message.
func (d *desk) giveUp(l *lane, m *item, a message.Address, reason, detail string) bool {
	t := l.trialOf(m)
	d.beginSpan(m, t)
	t.span.Fail(resultDead)
	d.conclude(m, d.c.outcome(m, message.Decision{Reason: reason, Detail: detail}, t))
	d.c.warnings.warn(d.c.log, "inbound message dead-lettered", "reason", reason, "device_id", a.Device, "subject", m.Subject, "seq", m.Seq,
		"msg_id", m.ID(d.c.opt.Subjects), "attempt", t.attempts, "status", t.status)
	return true
}

func (d *desk) conclude(m *item, o *message.Outcome) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m.outcome = o
}
