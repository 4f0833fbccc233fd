package outbound

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"plaspy-bridge/bridge/outbound/inventory"
	"plaspy-bridge/bridge/outbound/track"
	"plaspy-bridge/bridge/trace"
	"plaspy-bridge/publisher"
)

// maxPart is the largest number of events that the publisher gets at once. The
// publication of a long gap goes out in parts.
const maxPart = 128

// maxConflicts bounds how often a turn starts its publication again after a refused
// fence, and how often it reads its device again.
const maxConflicts = 5

// publish plans the publication of a turn's news and starts it, unless another replica
// may have polled the device since the turn began. The publication goes on with start,
// published and store, part by part, until finish or abandon ends the turn.
func (t *turn) publish(ctx context.Context, n track.News) {
	if n.Fixes == nil && n.Alerts == nil && n.Silent == nil && t.job.d.track.Unpublished() == 0 {
		t.end(t.success)
		return
	}
	if t.job.d.revoked.Load() || t.renewals == 0 && !t.sole(ctx) { // else renew has made sure
		t.unusable(ctx, errOutdated)
		return
	}
	t.pub = t.job.d.track.Publish(n)
	if err := t.verify(ctx); err != nil {
		t.abandon(err)
		return
	}
	t.start(ctx)
}

// errOutdated ends a publication because the stream does not hold the state that it
// follows from.
var errOutdated = errors.New("another replica has published, or the stream has lost data; polling the device again")

// verify checks that the device's last location in the stream is the one that the
// publication follows from, if the fences of its events would not show that.
func (t *turn) verify(ctx context.Context) error {
	if !t.pub.Unfenced() {
		return nil
	}
	p, d := t.pool, t.job.d
	last, err := p.parts.Events.Last(ctx, p.parts.Subjects.Location(d.token()))
	switch {
	case err != nil:
		return err
	case last != nil && last.Seq == d.track.Seq, last == nil && d.track.Seq == 0:
		return nil
	case last == nil:
		return t.expire(ctx, d.track.Seq)
	}
	return errOutdated
}

// start hands the next part of the publication to the publisher.
func (t *turn) start(ctx context.Context) {
	p := t.pool
	if t.pub.Done() {
		t.finish()
		return
	}
	t.events = t.events[:0]
	t.pub.Next(maxPart, t)
	t.beginSpans(ctx)
	if err := p.parts.Events.Publish(ctx, t.events, func(err error) { t.published(ctx, err) }); err != nil {
		// The process ends: it does not poll this device again.
		t.endSpans(publisher.ErrStopped)
		p.log.Debug("could not publish a change", "device_id", t.job.d.id, "err", err)
		t.job.d.track = t.pub.Track()
		t.end(ending{reread: true})
	}
}

// published handles the publisher's answer to a part: it goes on with the next part,
// or resolves the error. It runs on the publisher's goroutine, which must not block, so
// all further work runs on a goroutine of the pool.
func (t *turn) published(ctx context.Context, err error) {
	p := t.pool
	t.endSpans(err)
	t.store()
	if err == nil && t.pub.Done() {
		t.finish()
		return
	}
	conflict, refused := errors.AsType[*publisher.Conflict](err)
	next := func() { t.start(ctx) }
	switch {
	case errors.Is(err, publisher.ErrStopped):
	case errors.Is(err, publisher.ErrUnstorable):
		t.complain("event cannot be published", err)
		p.metrics.refused.Inc()
		t.pub.Refuse()
	case refused:
		p.metrics.conflicts.Inc()
		next = func() { t.resolve(ctx, conflict) }
	case errors.Is(err, publisher.ErrFound) && !t.pub.Found():
		next = func() { t.planAgain(ctx) }
	}
	if errors.Is(err, publisher.ErrStopped) || !p.life.background(next) {
		t.job.d.track = t.pub.Track()
		t.end(ending{reread: true})
	}
}

// store updates the track with the events of a part that are stored.
func (t *turn) store() {
	for _, e := range t.events {
		if e.Seq == 0 {
			break
		}
		t.result.NoteEvent(e)
		if f := t.pub.Polled(); f != nil {
			t.pool.metrics.fixAge(f)
		}
		t.pub.Stored(e.Seq)
	}
}

// finish ends a turn after its publication is stored.
func (t *turn) finish() {
	if n := t.pub.Refused(); n > 0 {
		t.result.NoteDetail(fmt.Sprintf("%d events were not published: the stream can never store them", n))
	}
	t.job.d.track = t.pub.Track()
	t.end(t.success)
}

// resolve goes on after the stream refused a fence. If the message of the fence has
// only left the stream by age, the publication is started again. Otherwise the answer
// is planned again on the stream's present state, or the publication is abandoned.
func (t *turn) resolve(ctx context.Context, c *publisher.Conflict) {
	t.tries++
	err := errOutdated
	if c.Last == nil && t.tries < maxConflicts {
		err = t.expire(ctx, c.Event.Expect)
	}
	switch {
	case errors.Is(err, errOutdated):
		t.planAgain(ctx)
	case err != nil:
		t.abandon(err)
	default:
		t.start(ctx)
	}
}

// expire notes that a message has left the stream by age. It returns [errOutdated] if
// the message was lost otherwise, and another error if the stream could not be read.
func (t *turn) expire(ctx context.Context, seq uint64) error {
	mark, err := t.pool.parts.State.Mark(ctx)
	if err != nil {
		return err
	}
	if seq == 0 || !mark.AgedOut(seq) {
		return errOutdated
	}
	t.pub.Expire(mark.FirstSeq)
	return nil
}

// planAgain plans the publication of the polled location again, on the state that the
// stream holds now, or abandons it.
func (t *turn) planAgain(ctx context.Context) {
	before, err := t.pub.Track(), errOutdated
	if t.changed != nil {
		err = t.renew(ctx, &before)
	}
	if err != nil {
		t.abandon(err)
		return
	}
	if err := t.compare(ctx, t.changed, t.at); err != nil {
		t.unusable(ctx, err)
	}
}

// renew reads the device again, because the stream may not hold the state that the turn
// began with. It returns nil if the turn's answer is still the newest, in two cases:
//
//   - The broker lost data, and the stream holds nothing newer than that state.
//   - No other replica can have polled the device since the turn began, and the stream
//     holds nothing that was seen after that. A previous owner may have published late.
func (t *turn) renew(ctx context.Context, before *track.Track) error {
	d, known, seen, seq := t.job.d, before.Known, before.SeenAt, before.Seq
	if t.renewals++; t.renewals >= maxConflicts || d.revoked.Load() {
		return errOutdated
	}
	doubts, err := t.readAgain(ctx)
	if err != nil {
		return err
	}
	lost := known && (!d.track.Known || d.track.Seq < seq && !d.track.SeenAt.After(seen))
	began := t.began.Truncate(time.Millisecond) // the precision of the stream
	newest := d.track.Seq == seq && !d.track.SeenAt.After(seen) || d.track.SeenAt.Before(began)
	if !lost && (!newest || !t.sole(ctx)) {
		return errOutdated
	}
	t.doubts = doubts
	return nil
}

// readAgain reads the device. It tries again while the broker is away: without the state,
// the answer would be dropped, and the API may never show that location again. It
// returns the doubts that the read settles.
func (t *turn) readAgain(ctx context.Context) (doubts uint64, err error) {
	try(ctx, 100*time.Millisecond, func() bool {
		doubts = t.pool.state.doubts.Load()
		err = t.pool.reread(ctx, t.job.d)
		return err == nil || t.job.d.revoked.Load()
	})
	return doubts, err
}

// sole reports whether no other replica can have polled the device since the turn
// began. If the lease ran out, it waits until that is known: the lease is renewed, or
// lost, soon after the broker is back.
func (t *turn) sole(ctx context.Context) (sole bool) {
	try(ctx, 20*time.Millisecond, func() bool {
		lapsed := t.pool.parts.Owner.Lapsed() // first, because a lease that is lost revokes before it ends
		revoked := t.job.d.revoked.Load()
		sole = !lapsed && !revoked
		return sole || revoked
	})
	return sole
}

// brokerPatience is how long an answer waits for the broker.
const brokerPatience = 30 * time.Second

// try calls f at once and then at an interval, until f reports that it is done,
// brokerPatience is over or ctx ends.
func try(ctx context.Context, interval time.Duration, f func() bool) {
	if f() {
		return
	}
	over, tick := time.NewTimer(brokerPatience), time.NewTicker(interval)
	defer over.Stop()
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-over.C:
			return
		case <-ctx.Done():
			return
		}
		if f() {
			return
		}
	}
}

// abandon drops the rest of a publication. The device's state is read from the stream
// before it is polled again, because the answer may be older than the stream's last
// location.
func (t *turn) abandon(err error) {
	t.job.d.track = t.pub.Track()
	t.pool.log.Debug("publication dropped", "device_id", t.job.d.id, "err", err)
	t.result.NoteDetail(err.Error())
	t.end(ending{notBefore: time.Now().Add(t.pool.opts.BackoffInitial), reread: true})
}

// Location implements [track.Maker].
func (t *turn) Location(l track.Location) {
	p, d, f := t.pool, t.job.d, l.Fix
	origin := ""
	if p.opts.Posted != nil && p.opts.Posted(d.token(), f.Time, f.Lat, f.Lon) {
		origin = "inbound"
	}
	t.events = append(t.events, p.parts.Subjects.LocationEvent(&publisher.Location{
		DeviceID: d.id, Token: d.token(), Name: t.job.name, Source: p.parts.API.DeviceURL(d.id),
		FixTime: f.Time, ObservedAt: t.pub.Observed(), Backfilled: f.Backfilled, Origin: origin,
		Raw: f.Raw, Hash: f.Hash, Edges: l.Announced, Since: l.Since, Newest: l.Newest,
	}, l.Expect))
}

// Alert implements [track.Maker].
func (t *turn) Alert(a track.Alert) {
	p, d := t.pool, t.job.d
	t.events = append(t.events, p.parts.Subjects.AlertEvent(&publisher.Alert{
		DeviceID: d.id, Token: d.token(), Name: t.job.name, Source: p.parts.API.DeviceURL(d.id),
		Alert: a.Alert, AlertToken: a.Token, State: a.State, Critical: a.Critical, Texts: json.RawMessage(a.Texts),
		DateTime: a.DateTime, Latitude: a.Latitude, Longitude: a.Longitude,
		FixTime: a.FixTime, ObservedAt: t.pub.Observed(), From: a.Source,
	}, a.Expect))
}

// beginSpans begins the spans of the events, which carry their contexts.
func (t *turn) beginSpans(ctx context.Context) {
	if t.pool.opts.Trace == nil {
		return
	}
	t.spans = t.spans[:0]
	for _, e := range t.events {
		t.spans = append(t.spans, t.pool.opts.Trace.Publish(ctx, t.template(e), e))
	}
}

// template is the subject of an event with names for device and alert.
func (t *turn) template(e *publisher.Event) string {
	if e.Subject == t.pool.parts.Subjects.Location(t.job.d.token()) {
		return t.pool.parts.Subjects.Location("{device}")
	}
	return t.pool.parts.Subjects.Alert("{device}", "{alert}")
}

// endSpans ends the spans of the events.
func (t *turn) endSpans(err error) {
	for i, s := range t.spans {
		e, failed := t.events[i], err
		if e.Seq != 0 {
			failed = nil
		}
		s.EndPublish(&trace.Message{Subject: e.Subject, Template: t.template(e), ID: e.ID}, e.Seq, publisher.Failure(failed))
	}
	t.spans = t.spans[:0]
}

// groupedEvents adds the groups of its device to each event before it is
// published.
type groupedEvents struct {
	inventory.Stream

	subjects publisher.Subjects
	groups   func(token string) []string
}

// Publish adds the groups and publishes the events.
func (g groupedEvents) Publish(ctx context.Context, events []*publisher.Event, done func(error)) error {
	for _, e := range events {
		if _, token, _, ok := g.subjects.Kind(e.Subject); ok {
			e.SetGroups(g.groups(token))
		}
	}
	return g.Stream.Publish(ctx, events, done)
}
