package inbound

import "plaspy-bridge/bridge/trace"

// beginSpan begins the span of a message in hand, unless it has one: a child of
// its producer's, or of its own first one where it was put down between.
func (d *desk) beginSpan(m *message, t *trial) {
	if d.c.opt.Trace == nil || t.span.On() {
		return
	}
	header := map[string][]string(m.header)
	if t.origin != nil {
		header = t.origin
	}
	t.span = d.c.opt.Trace.Process(d.posts, header, trace.Message{
		Subject: m.subject, Template: d.template(m.address), ID: m.id(d.stream.name), Bytes: len(m.body),
	})
	if t.origin == nil {
		t.origin = make(map[string][]string, 2)
		t.span.Inject(t.origin)
	}
}

// template is the subject with a name in the device's place.
func (d *desk) template(a address) string {
	switch a.kind {
	case Location:
		return d.c.opt.Subjects.InLocation("{device}")
	case Alert:
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
