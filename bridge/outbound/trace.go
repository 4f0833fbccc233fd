package outbound

import (
	"context"
	"errors"

	"plaspy-bridge/bridge/trace"
	"plaspy-bridge/publisher"
)

// endTrace ends the trace of the present turn.
func (d *device) endTrace() {
	if d.span.On() {
		d.span.EndPoll(d.id, d.turn.result.String(), int(d.turn.published))
		d.span = trace.Span{}
	}
}

// beginSpans begins the spans of a chain's events, and has them carry their
// contexts. A chain that is made anew has new ones.
func (p *Pool) beginSpans(ctx context.Context, c *chain) {
	if p.opts.Trace == nil {
		return
	}
	c.spans = c.spans[:0]
	for i, e := range c.events {
		c.spans = append(c.spans, p.opts.Trace.Publish(ctx, p.template(&c.actions[i]), e))
	}
}

// template is the subject of an action's event with names for device and alert.
func (p *Pool) template(a *action) string {
	if a.entry != nil || a.edge.alert != "" {
		return p.subjects.Alert("{device}", "{alert}")
	}
	return p.subjects.Location("{device}")
}

// endSpans ends the spans of a chain's events before what is stored of them is
// taken off it.
func (p *Pool) endSpans(c *chain, err error) {
	for i, s := range c.spans {
		endPublish(s, c.events[i], p.template(&c.actions[i]), err)
	}
	c.spans = c.spans[:0]
}

func endPublish(s trace.Span, e *publisher.Event, template string, err error) {
	if e.Seq != 0 {
		err = nil
	}
	s.EndPublish(&trace.Message{Subject: e.Subject, Template: template, ID: e.ID}, e.Seq, failure(err))
}

// failure is why an event is not stored, in a word.
func failure(err error) string {
	_, refused := errors.AsType[*publisher.Conflict](err)
	switch {
	case err == nil:
		return ""
	case refused:
		return "conflict"
	case errors.Is(err, publisher.ErrFound):
		return "superseded"
	case errors.Is(err, publisher.ErrTooLarge):
		return "too_large"
	case errors.Is(err, publisher.ErrStopped):
		return "stopped"
	}
	return "error"
}
