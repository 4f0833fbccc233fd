package inbound

import (
	"plaspy-bridge/bridge/inbound/message"
	"plaspy-bridge/bridge/trace"
)

// beginSpan begins the span of a message in hand, unless it has one: a child of
// its producer's, or of its own first one where it was put down between.
func (d *desk) beginSpan(m *item, t *trial) {
	if d.c.opt.Trace == nil || t.span.On() {
		return
	}
	header := map[string][]string(m.Header)
	if t.origin != nil {
		header = t.origin
	}
	t.span = d.c.opt.Trace.Process(d.posts, header, trace.Message{
		Subject: m.Subject, Template: d.template(m.Address), ID: m.ID(d.c.opt.Subjects), Bytes: len(m.Body),
	})
	if t.origin == nil {
		t.origin = make(map[string][]string, 2)
		t.span.Inject(t.origin)
	}
}

// template is the subject with a name in the device's place.
func (d *desk) template(a message.Address) string {
	switch a.Kind {
	case message.Location:
		return d.c.opt.Subjects.InLocation("{device}")
	case message.Alert:
		return d.c.opt.Subjects.InAlert("{device}")
	}
	return string(d.c.opt.Subjects) + ".in.{unknown}"
}

// endSpan ends the span of the lane's first message, if it has one: it is
// finished, or put down for long. A span that stayed open through a wait of hours
// would be lost with the process, and the collector would not wait for it.
func (l *lane) endSpan(result, failure string) {
	if l.trial == nil || !l.trial.span.On() {
		return
	}
	l.trial.span.EndProcess(result, l.trial.attempts, failure)
	l.trial.span = trace.Span{}
}
