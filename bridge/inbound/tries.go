package inbound

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"plaspy-bridge/bridge/inbound/lane"
	"plaspy-bridge/bridge/inbound/message"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/trace"
)

// tries are the tries of this process to post one message.
type tries struct {
	device, id  string // for the log
	attempts    int
	first, last time.Time
	status      int    // of the last answer, 0 if none came
	detail      string // of the last failure
	renewed     bool   // the token was refused for this message, and is new since
	warned      bool   // the failure is in the log
	failure     error  // of the try that just ended
	batch       *batch // nil unless the message is one
	span        trace.Span
	traced      *trace.Message      // the message as its spans describe it; nil if it has none
	origin      map[string][]string // headers that name its first span
}

// triesOf returns the tries of a message.
func triesOf(m *lane.Message) *tries {
	t, ok := m.Note.(*tries)
	if !ok {
		t = &tries{}
		m.Note = t
	}
	return t
}

// count notes a try that was made.
func (t *tries) count(began time.Time, status int, err error) {
	t.attempts++
	if t.first.IsZero() {
		t.first = began
	}
	t.last, t.status, t.detail = began, status, ""
	if err == nil {
		return
	}
	t.detail = err.Error()
	if e, ok := errors.AsType[*plaspy.Error](err); ok {
		t.status = e.Status
		if e.Excerpt != "" {
			t.detail = e.Excerpt
		}
	}
}

// known returns the tries as results and dead letters show them.
func (t *tries) known() message.Tries {
	return message.Tries{Attempts: t.attempts, First: t.first, Last: t.last, Status: t.status}
}

// wasTried reports whether err is from a request that was sent, or that cannot be
// sent. While a post waits for a token or the budget, there is no try.
func wasTried(err error) bool {
	if err == nil {
		return true
	}
	if _, ok := errors.AsType[*plaspy.Error](err); ok {
		return true
	}
	class := plaspy.Classify(err)
	return class != plaspy.Canceled && class != plaspy.Throttled
}

// causeOf returns the cause of the wait after a failure.
func causeOf(err error) lane.Cause {
	switch class := plaspy.Classify(err); {
	case class == plaspy.Throttled:
		return lane.Throttled
	case class == plaspy.Reauth, class == plaspy.Forbidden:
		return lane.Auth
	case plaspy.IsOutage(err):
		return lane.Outage
	}
	return lane.Other
}

// retryAfter is the wait that the API asks for, lengthened a little so that not
// all posts come back in the same instant.
func retryAfter(err error) time.Duration {
	e, ok := errors.AsType[*plaspy.Error](err)
	if !ok || !e.HasRetryAfter {
		return 0
	}
	return e.RetryAfter + rand.N(e.RetryAfter/10+1)
}

// beginSpan begins the span of a message, unless it has one: a child of its
// producer's, or of its own first one if the message was left to the stream since.
func (c *Consumer) beginSpan(ctx context.Context, m *item, t *tries) {
	if c.opt.Trace == nil || t.span.On() {
		return
	}
	header := m.Header
	if t.origin != nil {
		header = t.origin
	}
	t.traced = &trace.Message{Subject: m.Subject, Template: c.template(m.Address), ID: m.ID(c.opt.Subjects), Bytes: len(m.Body)}
	t.span = c.opt.Trace.Process(ctx, header, *t.traced)
	if t.origin == nil {
		t.origin = make(map[string][]string, 2)
		t.span.Inject(t.origin)
	}
}

// settleSpan begins the span of the removal of a message from the stream.
func (c *Consumer) settleSpan(t *tries) trace.Span {
	if t.traced == nil {
		return trace.Span{}
	}
	return c.opt.Trace.Settle(t.span, *t.traced)
}

// template is the subject with a name in place of the device.
func (c *Consumer) template(a message.Address) string {
	switch a.Kind {
	case message.Location:
		return c.opt.Subjects.InLocation("{device}")
	case message.Alert:
		return c.opt.Subjects.InAlert("{device}")
	}
	return c.opt.Subjects.InUnknown()
}

// endSpan ends the span of a message that is finished, or waits for long. A span
// that stayed open for hours would be lost with the process.
func (t *tries) endSpan(result, failure string) {
	if t.span.On() {
		t.span.EndProcess(result, t.attempts, failure)
		t.span = trace.Span{}
	}
}
