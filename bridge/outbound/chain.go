package outbound

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"plaspy-bridge/bridge/outbound/schedule"
	"plaspy-bridge/bridge/trace"
	"plaspy-bridge/publisher"
)

// chain is what one poll has to publish for a device, which is busy until all
// of it is stored. Actions that are stored are taken off its front.
type chain struct {
	d        *device
	actions  []action
	events   []*publisher.Event // of the actions, in the same order
	spans    []trace.Span       // of the events, likewise; none where tracing is off
	observed time.Time
	since    time.Time // the alert history was not read from here on; zero: it was
	seen     schedule.Observation
	tries    int // conflicts so far
}

// action is one event to publish, made anew whenever the state it follows from
// has changed.
type action struct {
	fix   *fix
	edge  edge        // its alert is "" for the fix itself
	free  bool        // the edge does not follow a location that announces it
	edges []edge      // for the fix: what follows it
	entry *historyRow // from the alert history instead
}

// maxPart is how many events of a chain are with the publisher at once.
const maxPart = 128

// maxConflicts is how often a chain is made anew before the device is polled
// again instead.
const maxConflicts = 5

// plan lists what publishes these fixes, after what the device's state says is
// published already; what the state still owes comes first.
func plan(d *device, fixes []*fix) []action {
	if len(d.owed) == 0 && len(fixes) == 0 {
		return nil
	}
	actions := make([]action, 0, len(d.owed)+len(fixes))
	raised, silent := d.raised, d.silent
	for _, e := range d.owed {
		actions = append(actions, action{fix: d.owedFix, edge: e})
		silent = silent && e.alert != silentAlert
	}
	for _, f := range fixes {
		edges := edgesTo(f, raised, silent)
		actions = append(actions, action{fix: f, edges: edges})
		for _, e := range edges {
			actions = append(actions, action{fix: f, edge: e})
		}
		if f.alertsKnown {
			raised = f.alerts
		}
		silent = false
	}
	return actions
}

// start publishes the chain; the device stays busy until it is done. An error
// is the context's.
func (p *Pool) start(ctx context.Context, c *chain) {
	c.dropDecided()
	if len(c.actions) == 0 {
		p.release(c.d, c.seen)
		return
	}
	// A long gap goes out in parts: events are larger than what they are made of.
	c.events = c.events[:0]
	for i := range min(len(c.actions), maxPart) {
		c.events = append(c.events, p.event(c, &c.actions[i]))
	}
	p.beginSpans(ctx, c)
	if err := p.stream.Publish(ctx, c.events, func(err error) { p.published(ctx, c, err) }); err != nil {
		// Shutting down: nobody polls this device again.
		p.endSpans(c, publisher.ErrStopped)
		p.log.Debug("change not published", "device_id", c.d.id, "err", err)
		p.release(c.d, schedule.Observation{Failed: true})
	}
}

// dropDecided drops edges of the location that is stored last, where the stream
// has something later of their alert: the same edge, by another replica or
// before a crash, or a later one.
func (c *chain) dropDecided() {
	for len(c.actions) > 0 {
		a := &c.actions[0]
		if a.edge.alert == "" || a.free || c.d.alertSeq[publisher.Encode(a.edge.alert)] <= c.d.seq {
			return
		}
		c.drop()
	}
}

// drop takes the first action, an edge, off the chain.
func (c *chain) drop() {
	e := c.actions[0].edge
	c.d.owed = slices.DeleteFunc(c.d.owed, func(o edge) bool { return o == e })
	c.actions = c.actions[1:]
}

func (p *Pool) event(c *chain, a *action) *publisher.Event {
	d := c.d
	switch {
	case a.entry != nil:
		return p.subjects.AlertEvent(a.entry.event(p, d, c.observed), d.alertSeq[a.entry.token])
	case a.edge.alert != "":
		return p.edgeEvent(d, a.fix, a.edge, c.observed)
	}
	return p.subjects.LocationEvent(&publisher.Location{
		DeviceID: d.id, Token: d.token, Name: d.title, Source: p.api.DeviceURL(d.id),
		FixTime: a.fix.time, ObservedAt: c.observed, Backfilled: a.fix.backfilled, Origin: p.origin(d, a.fix),
		Raw: a.fix.raw, Hash: a.fix.hash, Edges: joinEdges(a.edges), Since: c.since,
	}, d.seq)
}

func (p *Pool) edgeEvent(d *device, f *fix, e edge, observed time.Time) *publisher.Event {
	token := publisher.Encode(e.alert)
	a := &publisher.Alert{
		DeviceID: d.id, Token: d.token, Name: d.title, Source: p.api.DeviceURL(d.id),
		Alert: e.alert, AlertToken: token, State: e.state, Critical: f.critical, Texts: json.RawMessage(f.texts),
		DateTime: f.dateTime, Latitude: f.latitude, Longitude: f.longitude, FixTime: f.time, ObservedAt: observed,
	}
	if e.alert == silentAlert {
		a.Critical, a.Texts = false, nil
	}
	return p.subjects.AlertEvent(a, d.alertSeq[token])
}

// published runs on the publisher's goroutine.
func (p *Pool) published(ctx context.Context, c *chain, err error) {
	p.endSpans(c, err)
	c.settle(p)
	conflict, refused := errors.AsType[*publisher.Conflict](err)
	switch {
	case err == nil && len(c.actions) == 0:
		p.release(c.d, c.seen)
	case err == nil && p.background(func() { p.start(ctx, c) }): // the next part
	case err == nil, errors.Is(err, publisher.ErrStopped):
		p.release(c.d, schedule.Observation{Failed: true})
	case errors.Is(err, publisher.ErrFound) && p.background(func() { p.start(ctx, c) }):
	case refused && c.tries < maxConflicts && p.background(func() { p.reconcile(ctx, c, conflict) }):
		c.tries++
		p.metrics.conflicts.Inc()
	case refused, errors.Is(err, publisher.ErrFound):
		p.doubt(c.d)
		p.release(c.d, schedule.Observation{Failed: true})
	default: // too large
		p.complain(c.d, "fix cannot be published", err)
		c.d.say("not published: " + err.Error())
		// The stream takes it as little the next time: only a change is news.
		if a := &c.actions[0]; a.entry == nil && a.edge.alert == "" {
			c.d.hash = a.fix.hash
		}
		p.release(c.d, c.seen)
	}
}

// settle takes what is stored off the front of the chain, into the device's
// state.
func (c *chain) settle(p *Pool) {
	n := 0
	for n < len(c.events) && c.events[n].Seq != 0 {
		a, seq := &c.actions[n], c.events[n].Seq
		c.d.count(c.events[n])
		switch {
		case a.entry != nil:
			c.d.setAlertSeq(a.entry.token, seq)
			c.d.saw(a.entry.alert, a.entry.time)
		case a.edge.alert != "":
			c.d.settleEdge(a.edge, seq)
			c.d.owed = slices.DeleteFunc(c.d.owed, func(e edge) bool { return e == a.edge })
		default:
			c.d.remember(a.fix, seq)
			c.d.changedAt, c.d.historyFrom = c.observed, c.since
			for _, alert := range a.fix.alerts {
				c.d.saw(alert, a.fix.time)
			}
			p.metrics.fixAge(a.fix)
		}
		n++
	}
	c.actions, c.events = c.actions[n:], c.events[n:]
}

func (d *device) settleEdge(e edge, seq uint64) {
	d.setAlertSeq(publisher.Encode(e.alert), seq)
	switch {
	case e.alert == silentAlert:
		d.silent = e.state == publisher.Raised
	case e.state == publisher.Raised:
		if !slices.Contains(d.raised, e.alert) { // its change alone was no change of the location
			d.raised = append(d.raised, e.alert)
		}
	default:
		d.raised = slices.DeleteFunc(d.raised, func(a string) bool { return a == e.alert })
	}
}

// reconcile makes a chain anew after its fence was refused: the stream holds
// something else than this process believed.
func (p *Pool) reconcile(ctx context.Context, c *chain, conflict *publisher.Conflict) {
	first := &c.actions[0]
	switch {
	case first.entry != nil:
		c.d.setAlertSeq(first.entry.token, lastSeq(conflict.Last))
		if first.entry.is(conflict.Last) { // another replica's
			c.actions = c.actions[1:]
		}
	case first.edge.alert != "":
		p.reconcileEdge(c, conflict.Last)
	default:
		if err := p.reconcileFixes(ctx, c, conflict.Last); err != nil {
			p.log.Debug("state of a device not read", "device_id", c.d.id, "err", err)
			p.doubt(c.d)
			p.release(c.d, schedule.Observation{Failed: true})
			return
		}
	}
	p.start(ctx, c)
}

func (p *Pool) reconcileEdge(c *chain, last *publisher.Stored) {
	e := c.actions[0].edge
	c.d.setAlertSeq(publisher.Encode(e.alert), lastSeq(last))
	if last == nil {
		return
	}
	var body publisher.AlertBody
	if err := json.Unmarshal(last.Body, &body); err != nil || body.Source == publisher.SourceHistory {
		return
	}
	if body.State == e.state { // another replica's, or what was before
		c.d.settleEdge(e, last.Seq)
		c.drop()
	}
}

// reconcileFixes takes what the stream holds as the device's state and keeps of
// the chain only what is newer: another replica may have seen more. What is
// dropped that the API still shows, the next poll finds again.
func (p *Pool) reconcileFixes(ctx context.Context, c *chain, last *publisher.Stored) error {
	d := c.d
	var fixes []*fix
	for _, a := range c.actions {
		if a.entry == nil && a.edge.alert == "" {
			fixes = append(fixes, a.fix)
		}
	}
	if last == nil {
		mark, err := p.stream.Mark(ctx)
		if err != nil {
			return err
		}
		if mark.AgedOut(d.seq) {
			d.seq = 0 // it aged out: what it said still holds
		} else {
			d.forget() // the broker lost it, and the edges that went with it
		}
	} else {
		d.seq = last.Seq
		if err := p.adopt(d, last); err == nil {
			fixes = slices.DeleteFunc(fixes, func(f *fix) bool { return !f.time.After(d.fixTime) || f.hash == d.hash })
		}
		// Alerts have sequences of their own, which may be as far from what was
		// believed as the location's.
		d.alertSeq = nil
		if err := p.stream.StateOf(ctx, d.token, p.opts.AlertHistory, func(s publisher.Stored) {
			if s.Kind == "alert" {
				p.takeAlert(d, s)
			}
		}); err != nil {
			return err
		}
		d.sortOut()
	}
	c.actions = plan(d, fixes)
	d.say("somebody else had published: made anew from what the stream holds")
	if len(fixes) == 0 {
		d.say("not published: the stream holds it already, or something newer")
		p.doubt(d)
		c.seen = schedule.Observation{Failed: true}
	}
	return nil
}

// joinEdges and splitEdges are the value of [publisher.HeaderEdges].
func joinEdges(edges []edge) string {
	if len(edges) == 0 {
		return ""
	}
	var b strings.Builder
	for i, e := range edges {
		if i > 0 {
			b.WriteByte(' ')
		}
		sign := byte('+')
		if e.state == publisher.Cleared {
			sign = '-'
		}
		b.WriteByte(sign)
		b.WriteString(publisher.Encode(e.alert))
	}
	return b.String()
}

func splitEdges(header string) []edge {
	var edges []edge
	for field := range strings.FieldsSeq(header) {
		alert, err := publisher.Decode(field[1:])
		if err != nil || alert == "" {
			continue
		}
		switch field[0] {
		case '+':
			edges = append(edges, edge{alert, publisher.Raised})
		case '-':
			edges = append(edges, edge{alert, publisher.Cleared})
		}
	}
	return edges
}

func lastSeq(s *publisher.Stored) uint64 {
	if s == nil {
		return 0
	}
	return s.Seq
}
