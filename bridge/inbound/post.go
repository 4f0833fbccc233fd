package inbound

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"plaspy-bridge/bridge/inbound/echo"
	"plaspy-bridge/bridge/inbound/lane"
	"plaspy-bridge/bridge/inbound/message"
	"plaspy-bridge/bridge/plaspy"
)

// errWithheld is the error of a post that was not sent.
var errWithheld = fmt.Errorf("post withheld: %w", context.Canceled)

// sendGate decides whether a post goes out. The post may wait minutes for the token
// and the budget. A stop, the loss of the seat or the message's age ends that wait, but
// never a request that was sent. A request with a refused token is no longer in
// flight and waits again.
type sendGate struct {
	state  atomic.Int32 // waiting, sent or withheld
	asked  atomic.Bool  // to withhold the post
	cancel context.CancelFunc
}

const (
	waiting int32 = iota
	sent
	withheld
)

// withhold keeps the post from being sent, or from being sent again.
func (g *sendGate) withhold() {
	g.asked.Store(true)
	if g.state.CompareAndSwap(waiting, withheld) {
		g.cancel()
	}
}

// send is called immediately before the request is sent.
func (g *sendGate) send(allowed bool) error {
	if !allowed {
		g.withhold()
	}
	if g.state.CompareAndSwap(waiting, sent) || g.state.Load() == sent {
		return nil
	}
	return errWithheld
}

// refused is called when the request was answered and the token refused.
func (g *sendGate) refused() {
	g.state.CompareAndSwap(sent, waiting)
	if g.asked.Load() {
		g.withhold()
	}
}

// post tries once to post a message. A single location or alert goes through try, a
// batch through postBatch.
func (r *pass) post(lm *lane.Message) lane.Answer {
	c, m, t := r.c, lm.Content.(*item), triesOf(lm)
	a := m.Address
	if a.Kind == message.Unknown {
		return r.giveUp(lm, "unknown subject: "+a.Reason, "", false)
	}
	t.device, t.id = a.Device, m.ID(c.opt.Subjects)
	if err := plaspy.CheckID(a.Device); err != nil {
		return r.giveUp(lm, "invalid: "+err.Error(), "", false)
	}
	posts, err := m.split()
	if err != nil {
		return r.giveUp(lm, "invalid: "+err.Error(), "", false)
	}
	if posts.Batch {
		return r.postBatch(lm, posts)
	}
	f, err := c.opt.Reader.Read(a.Kind, a.Device, posts.Elements[0])
	if err != nil {
		return r.giveUp(lm, "invalid: "+err.Error(), "", false)
	}
	return r.try(lm, &f, message.IdempotencyKey(t.id), func(answer plaspy.Answer, refused string) lane.Answer {
		if refused != "" {
			return r.giveUp(lm, refused, t.detail, true)
		}
		return r.posted(lm, &f, answer)
	})
}

// conclusion makes the answer for a post that the API accepted, or that it refused for
// good. refused is the reason, else "".
type conclusion func(answer plaspy.Answer, refused string) lane.Answer

// try posts a location or an alert once, if the circuit allows it. It returns the
// answer for the lanes: that of conclude, or the wait before the next try.
func (r *pass) try(lm *lane.Message, f *message.Form, key string, conclude conclusion) lane.Answer {
	c, m, t := r.c, lm.Content.(*item), triesOf(lm)
	if ok, at := c.opt.Circuit.Allow(time.Now()); !ok {
		r.down.Store(true)
		r.do(func(l *lane.Lanes) { l.Down(at) })
		t.endSpan(resultRetried, lane.Outage.String())
		return lane.Answer{Withheld: true}
	}
	c.beginSpan(r.posts, m, t)
	answer, gate, err := r.send(lm, f, key)
	if gate.state.Load() == withheld {
		if c.opt.tooOld(m) && r.work.Err() == nil {
			return r.tooOld(lm)
		}
		return lane.Answer{Withheld: true}
	}
	if e, ok := errors.AsType[*plaspy.Error](err); ok && e.Status >= 200 && e.Status <= 299 && errors.Is(err, plaspy.ErrTooLarge) {
		// The API took the message. To post it again for an answer that fits would not help.
		answer, err = plaspy.Answer{Status: e.Status}, nil
	}
	if err == nil {
		r.c.echo(m.Address).Taken(m.Address.Token, f.Fix)
		return conclude(answer, "")
	}
	return r.failed(lm, f, err, conclude)
}

// send sends the post once the token and the budget permit it. The gate shows whether
// it was sent.
func (r *pass) send(lm *lane.Message, f *message.Form, key string) (plaspy.Answer, *sendGate, error) {
	c, m, t := r.c, lm.Content.(*item), triesOf(lm)
	ctx, cancel := context.WithCancel(t.span.In(r.posts))
	defer cancel()
	gate := &sendGate{cancel: cancel}
	defer context.AfterFunc(r.work, gate.withhold)()
	age := time.AfterFunc(m.At.Add(c.opt.MaxAge).Sub(c.opt.now()), gate.withhold)
	defer age.Stop()
	c.echo(m.Address).Sending(m.Address.Token, f.Fix)
	began := time.Now()
	o := plaspy.PostOptions{
		IdempotencyKey: key,
		Before:         func() error { return gate.send(c.opt.Seat.Posting()) },
		Refused: func() {
			t.count(began, 401, nil)
			t.detail = "the API refused the token"
			gate.refused()
		},
	}
	send := c.opt.API.Locations
	if m.Address.Kind == message.Alert {
		send = c.opt.API.Alerts
	}
	answer, err := send(ctx, m.Address.Device, f.Body, o)
	if gate.state.Load() != withheld {
		if wasTried(err) {
			t.count(began, answer.Status, err)
			c.load.tried(time.Now())
			c.metrics.duration.Observe(time.Since(began).Seconds())
		}
		c.opt.Circuit.Report(m.Address.Token, err)
		r.circuit()
	}
	return answer, gate, err
}

// posted makes the verdict of a message that the API accepted.
func (r *pass) posted(lm *lane.Message, f *message.Form, answer plaspy.Answer) lane.Answer {
	c, m, t := r.c, lm.Content.(*item), triesOf(lm)
	d := message.Decision{Tries: t.known(), At: time.Now(), Response: answer.Body}
	d.Status = answer.Status
	if m.Address.Kind == message.Location {
		d.Fix = &f.Fix
	}
	if t.warned {
		c.log.Info("inbound message posted after retries", "device_id", t.device, "seq", m.Seq, "msg_id", t.id, "attempt", t.attempts)
	} else if c.log.Enabled(r.posts, slog.LevelDebug) {
		c.log.Debug("inbound message posted", "device_id", t.device, "seq", m.Seq, "msg_id", t.id, "attempt", t.attempts, "status", answer.Status)
	}
	v := &verdictNote{kind: m.Address.Kind, decision: d, connection: m.connection}
	v.outcome = c.outcome(m, d, t)
	return lane.Answer{Verdict: &lane.Verdict{Posted: true, Sent: true, Note: v}}
}

// failed decides how a message goes on after a failed try: a verdict or another try.
func (r *pass) failed(lm *lane.Message, f *message.Form, err error, conclude conclusion) lane.Answer {
	c, m, t := r.c, lm.Content.(*item), triesOf(lm)
	class := plaspy.Classify(err)
	refused := func(reason string) lane.Answer {
		c.echo(m.Address).Refused(m.Address.Token, f.Fix)
		return conclude(plaspy.Answer{}, reason)
	}
	switch {
	case class == plaspy.Canceled && r.posts.Err() != nil:
		return lane.Answer{Withheld: true} // the grace is over; the API may have accepted it
	case c.opt.tooOld(m):
		return r.tooOld(lm)
	case class == plaspy.Reject:
		return refused("rejected" + withStatus(t.status))
	case class == plaspy.Forbidden && t.renewed:
		return refused("forbidden twice, with a token less than a minute old")
	case class == plaspy.Foreign && plaspy.IsGone(err) && r.gone(m.Address.Device):
		return refused("the account has no such device any more" + withStatus(t.status))
	}
	c.metrics.count(m.Address.Kind, resultRetried)
	t.failure = err
	answer := lane.Answer{Cause: causeOf(err), AtLeast: retryAfter(err), Jitter: rand.Float64()}
	if class == plaspy.Forbidden {
		t.renewed, answer.Now = true, true
		c.renew()
	}
	return answer
}

// gone reports whether the API's device list lacks a device. If the list cannot be
// read, it returns false.
func (r *pass) gone(deviceID string) bool {
	if r.c.opt.Directory == nil {
		return false
	}
	there, err := r.c.opt.Directory.Has(r.work, deviceID)
	if err != nil {
		r.c.log.Debug("could not read the device list to confirm that a device is gone", "err", err, "device_id", deviceID)
	}
	return err == nil && !there
}

// echo returns the tracker of the posts to an address, nil if there is none.
func (c *Consumer) echo(a message.Address) *echo.Tracker {
	if a.Kind != message.Location {
		return nil
	}
	return c.opt.Echo
}

func withStatus(status int) string {
	if status == 0 {
		return ""
	}
	return fmt.Sprintf(" with status %d", status)
}

// tooOld makes the verdict of a message that has reached Options.MaxAge.
func (r *pass) tooOld(m *lane.Message) lane.Answer {
	t := triesOf(m)
	detail := t.detail
	if t.attempts == 0 {
		detail = "no try was answered"
	}
	reason := fmt.Sprintf("too old: not delivered within %v", r.c.opt.MaxAge)
	if answer, ok := r.expired(m, reason); ok {
		return answer
	}
	return r.giveUp(m, reason, detail, t.attempts > 0)
}

// giveUp makes the verdict of a message that becomes a dead letter. Without an answer
// the reason is its error, too: every letter and result has one.
func (r *pass) giveUp(lm *lane.Message, reason, detail string, wasSent bool) lane.Answer {
	m, t := lm.Content.(*item), triesOf(lm)
	r.dead(m, t, reason)
	d := message.Decision{Tries: t.known(), At: time.Now(), Reason: reason, Detail: cmp.Or(detail, reason)}
	return lane.Answer{Verdict: &lane.Verdict{Sent: wasSent, Note: &verdictNote{kind: m.Address.Kind, decision: d}}}
}

// dead shows in the trace and the log that a message becomes a dead letter.
func (r *pass) dead(m *item, t *tries, reason string) {
	c := r.c
	c.beginSpan(r.posts, m, t)
	t.span.Fail(resultDead)
	c.warnings.warn(c.log, "inbound message dead-lettered", "reason", reason, "device_id", m.Address.Device, "subject", m.Subject, "seq", m.Seq,
		"msg_id", m.ID(c.opt.Subjects), "attempt", t.attempts, "status", t.status)
}
