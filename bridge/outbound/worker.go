package outbound

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v4"

	"plaspy-bridge/bridge/outbound/quota"
	"plaspy-bridge/bridge/outbound/schedule"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/plaspy/rawjson"
	"plaspy-bridge/publisher"
)

// initialBuffer fits a documented answer; a worker's grows with what it meets.
const initialBuffer = 4 << 10

func (p *Pool) worker(ctx context.Context) {
	buf := make([]byte, 0, initialBuffer)
	for j := range p.jobs {
		buf = p.poll(ctx, j, buf)
		if j.suspect {
			p.mu.Lock()
			p.suspects--
			p.mu.Unlock()
		}
	}
}

// poll makes one poll and gives the buffer back.
func (p *Pool) poll(ctx context.Context, j job, buf []byte) []byte {
	d := j.d
	ctx, d.span = p.opts.Trace.Poll(ctx)
	if p.opts.Owns != nil && !p.opts.Owns(d.token) {
		d.came(resultPutOff, errNotOurs)
		j.permit.Return()
		if j.doubtful {
			p.doubt(d)
		}
		p.release(d, schedule.Observation{Failed: true, NotBefore: time.Now().Add(suspectWait)})
		return buf
	}
	if j.doubtful {
		if err := p.reread(ctx, d); err != nil {
			p.log.Debug("state of a device not read", "device_id", d.id, "err", err)
			d.came(resultPutOff, err)
			j.permit.Return()
			p.doubt(d)
			p.release(d, schedule.Observation{Failed: true, NotBefore: time.Now().Add(p.opts.BackoffInitial)})
			return buf
		}
	}
	if !p.allot(ctx, j) {
		return buf
	}
	start := time.Now()
	answer, err := p.api.LastLocation(plaspy.WithPermit(ctx, j.permit), d.id, buf)
	if answer.Buf != nil {
		buf = answer.Buf[:0]
	}
	p.metrics.duration.Observe(time.Since(start).Seconds())
	p.circuit.Report(d.id, err)
	if err != nil {
		p.failed(ctx, d, err)
		return buf
	}
	if answer.Raw != nil {
		p.opts.Quota.Count(answer.At, &d.day, 1)
	}
	if err := p.compare(ctx, d, answer.Raw, answer.At); err != nil {
		p.unusable(ctx, d, err)
	}
	return buf
}

// allot reserves the poll's result in the device's daily quota. False means that
// there was none left, and that the turn is over.
func (p *Pool) allot(ctx context.Context, j job) bool {
	d, now := j.d, time.Now()
	again, err := p.opts.Quota.Admit(ctx, now, d.token, &d.day)
	if err == nil {
		return true
	}
	if !errors.Is(err, quota.ErrUsedUp) {
		again = now.Add(p.opts.BackoffInitial)
		p.log.Debug("daily quota not reserved", "device_id", d.id, "err", err)
	}
	d.came(resultPutOff, err)
	j.permit.Return()
	p.release(d, schedule.Observation{Failed: true, NotBefore: again})
	return false
}

// compare finds out whether an answer is news, and publishes it if it is. An
// error means that nothing was published.
func (p *Pool) compare(ctx context.Context, d *device, raw []byte, at time.Time) error {
	if raw == nil { // it has never reported
		p.noGap(d)
		p.succeeded(d)
		p.metrics.unchanged.Inc()
		d.came(resultNone, nil)
		p.publish(ctx, &chain{d: d, observed: at, seen: p.observation(d, nil, at)})
		return nil
	}
	hash, err := rawjson.Hash(raw, p.ignore)
	if err != nil {
		return fmt.Errorf("%w: %w", errFix, err)
	}
	if d.have && hash == d.hash {
		p.noGap(d)
		p.succeeded(d)
		p.metrics.unchanged.Inc()
		d.came(resultUnchanged, nil)
		p.unchanged(ctx, d, raw, at)
		return nil
	}
	// The buffer is the worker's: what is published outlives the poll.
	f, err := parseFix(slices.Clone(raw), hash)
	if err != nil {
		return err
	}
	g, err := p.gap(ctx, d, f)
	if err != nil {
		return err
	}
	p.succeeded(d)
	p.metrics.changed.Inc()
	d.came(resultChanged, nil)
	p.differs(d, f)
	if d.have && f.time.Before(d.fixTime) {
		p.metrics.backwards.Inc()
	}
	c := &chain{d: d, observed: at, since: g.since, seen: p.observation(d, f, at)}
	if g.end != nil {
		f, c.seen = g.end, p.goOn(d)
	}
	for i := range g.rows {
		c.actions = append(c.actions, action{fix: f, entry: &g.rows[i]})
	}
	c.actions = append(c.actions, plan(d, append(g.fixes, f))...)
	for _, a := range f.alerts {
		if _, err := publisher.Token(a); err != nil {
			p.complain(d, "alert not published", err)
		}
	}
	p.publish(ctx, c)
	return nil
}

// unchanged publishes what an unchanged fix may still be news of: edges that a
// crash cut off, alerts where their change alone is no change, silence.
func (p *Pool) unchanged(ctx context.Context, d *device, raw []byte, at time.Time) {
	c := &chain{d: d, observed: at, seen: p.observation(d, nil, at), actions: plan(d, nil)}
	silent := p.opts.SilentAfter > 0 && !d.silent && at.Sub(d.changedAt) >= p.opts.SilentAfter
	if silent || p.ignoresAlerts {
		if f, err := parseFix(slices.Clone(raw), d.hash); err == nil {
			if p.ignoresAlerts {
				for _, e := range edgesTo(f, d.raised, false) {
					c.actions = append(c.actions, action{fix: f, edge: e, free: true})
				}
			}
			if silent {
				d.came(resultSilent, nil)
				c.actions = append(c.actions, action{fix: f, edge: edge{silentAlert, publisher.Raised}, free: true})
			}
		}
	}
	p.publish(ctx, c)
}

// publish starts a chain; alerts whose names cannot be a subject are left out.
func (p *Pool) publish(ctx context.Context, c *chain) {
	c.actions = slices.DeleteFunc(c.actions, func(a action) bool {
		if a.edge.alert == "" {
			return false
		}
		_, err := publisher.Token(a.edge.alert)
		return err != nil
	})
	p.start(ctx, c)
}

// observation tells the schedule what a poll showed; a nil fix is the one that
// was known before.
func (p *Pool) observation(d *device, f *fix, at time.Time) schedule.Observation {
	o := schedule.Observation{NotBefore: p.opts.Quota.Next(at, &d.day)}
	switch {
	case f != nil:
		o.Fix, o.Changed, o.FixTime, o.Speed, o.Input = true, true, f.time, f.speed, f.input
	case d.have:
		o.Fix, o.FixTime, o.Speed, o.Input = true, d.fixTime, float64(d.speed), d.input
	default:
		o.Speed, o.Input = math.NaN(), inputsUnknown
	}
	return o
}

// lastingFailure is how many polls of one device in a row fail before it is told
// of where other devices do not.
const lastingFailure = 3

// failed ends a poll that the API did not answer.
func (p *Pool) failed(ctx context.Context, d *device, err error) {
	if ctx.Err() != nil {
		p.release(d, schedule.Observation{Failed: true})
		return
	}
	p.metrics.failed.Inc()
	d.came(resultError, err)
	class := plaspy.Classify(err)
	d.span.Fail(class.String())
	switch class {
	case plaspy.Throttled:
		if e, ok := asAPIError(err); ok && e.DeviceOnly {
			p.complain(d, "API limits the requests for it", err)
			p.backOff(d, err)
			return
		}
		// Everybody is held back by the budget; it is not this device's fault.
		p.release(d, schedule.Observation{Failed: true})
		return
	case plaspy.Reject, plaspy.Forbidden:
		p.complain(d, "poll refused", err)
	default:
		p.log.Debug("poll failed", "device_id", d.id, "err", err)
	}
	down := plaspy.IsOutage(err) && p.circuit.State().Open
	if !down {
		p.widespread.failed(d.id, p.Owned(), err)
	}
	if class != plaspy.Reject && class != plaspy.Forbidden && !down && d.failures+1 >= lastingFailure {
		p.complain(d, "poll fails again and again", err)
	}
	if down {
		// The circuit holds everybody back; once it closes nobody should wait
		// for a backoff of its own.
		p.release(d, schedule.Observation{Failed: true})
		return
	}
	p.backOff(d, err)
}

// unusable ends a poll whose answer cannot be published, or whose gap could not
// be read.
func (p *Pool) unusable(ctx context.Context, d *device, err error) {
	if ctx.Err() != nil {
		p.release(d, schedule.Observation{Failed: true})
		return
	}
	p.metrics.failed.Inc()
	if errors.Is(err, errFix) {
		p.recovered(d)
		d.span.Fail("unusable")
		p.widespread.failed(d.id, p.Owned(), err)
		p.complain(d, "location not published", err)
		d.came(resultUnusable, err)
		p.release(d, schedule.Observation{NotBefore: p.opts.Quota.Next(time.Now(), &d.day), Speed: math.NaN(), Input: inputsUnknown})
		return
	}
	d.span.Fail(plaspy.Classify(err).String())
	d.came(resultPutOff, err)
	p.log.Debug("poll put off", "device_id", d.id, "err", err)
	p.backOff(d, err)
}

// backOff leaves a device alone for a time that grows with its failures; other
// devices do not notice.
func (p *Pool) backOff(d *device, err error) {
	if d.backoff == nil {
		d.backoff = backoff.NewExponentialBackOff(
			backoff.WithInitialInterval(p.opts.BackoffInitial), backoff.WithMaxInterval(p.opts.BackoffMax),
			backoff.WithMaxElapsedTime(0))
	}
	wait := min(d.backoff.NextBackOff(), p.opts.BackoffMax)
	if e, ok := asAPIError(err); ok && e.RetryAfter > wait {
		wait = e.RetryAfter
	}
	p.mu.Lock()
	d.failures++
	p.mu.Unlock()
	p.release(d, schedule.Observation{Failed: true, NotBefore: time.Now().Add(wait)})
}

func (p *Pool) succeeded(d *device) {
	p.widespread.worked()
	p.recovered(d)
}

func (p *Pool) recovered(d *device) {
	if d.failures == 0 {
		return
	}
	if d.complaint != "" {
		p.log.Info("device answers again", "device_id", d.id, "count", d.failures)
	}
	p.mu.Lock()
	d.failures = 0
	p.mu.Unlock()
	d.backoff, d.complaint = nil, ""
}

// complain logs what is wrong with a device once, until it changes.
func (p *Pool) complain(d *device, what string, err error) {
	text := what + ": " + err.Error()
	if d.complaint == text || p.widespread.state().Polls > 0 { // which one line reports for all
		p.log.Debug("device is still in trouble", "device_id", d.id, "reason", what, "err", err)
		return
	}
	d.complaint = text
	p.log.Warn("device is in trouble", "device_id", d.id, "reason", what, "err", err)
}

func asAPIError(err error) (*plaspy.Error, bool) { return errors.AsType[*plaspy.Error](err) }

// origin marks a location that the bridge itself posted.
func (p *Pool) origin(d *device, f *fix) string {
	if p.opts.Posted != nil && p.opts.Posted(d.token, f.time, f.lat, f.lon) {
		return "inbound"
	}
	return ""
}
