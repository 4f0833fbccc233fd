package outbound

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"time"
	"unique"

	"plaspy-bridge/auth/backoff"
	"plaspy-bridge/bridge/outbound/decision"
	"plaspy-bridge/bridge/outbound/gap"
	"plaspy-bridge/bridge/outbound/quota"
	"plaspy-bridge/bridge/outbound/schedule"
	"plaspy-bridge/bridge/outbound/track"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/trace"
	"plaspy-bridge/publisher"
)

// initialBuffer holds a documented answer. A worker's buffer grows if necessary.
const initialBuffer = 4 << 10

// turn is one poll of a device and the publication of its answer. The device
// is busy until the turn has ended.
type turn struct {
	job    job
	pool   *Pool
	permit *plaspy.Permit
	open   time.Time // the lease was found to run, and need not be looked at before
	span   trace.Span
	result decision.Decision
	err    error // why the API gave no answer, or was not asked

	doubts   uint64    // resync.doubts when the turn began, or last read its device
	renewals int       // how often the device was read again after the answer arrived
	changed  []byte    // the answer, if it is news
	began    time.Time // when the API was asked
	at       time.Time // when it answered
	// success is how the turn ends once its publication is stored. It points to
	// observed if the schedule learns from the poll.
	success  ending
	observed schedule.Observation

	pub    *track.Publication // what is left to publish
	events []*publisher.Event // the part that the publisher has now
	spans  []trace.Span       // of the events
	tries  int                // parts that the stream refused
}

func (p *Pool) worker(ctx context.Context) {
	buf := make([]byte, 0, initialBuffer)
	for t := range p.dispatcher.jobs {
		suspect := t.job.suspect
		buf = t.run(ctx, buf)
		if suspect {
			p.fleet.suspectEnded()
		}
	}
}

// end gives the device back to the schedule.
func (t *turn) end(e ending) {
	if t.span.On() {
		t.span.EndPoll(t.job.d.id, t.result.Result.String(), int(t.result.Published))
	}
	now := time.Now()
	if t.result.Result != decision.None && t.pool.log.Enabled(context.Background(), slog.LevelDebug) {
		t.pool.log.LogAttrs(context.Background(), slog.LevelDebug, "poll ended", t.result.Attrs(t.job.d.id, t.began, now)...)
	}
	t.pool.fleet.release(t.job.d, now, t.result, e)
	t.answerAsked(now)
	nudge(t.pool.dispatcher.wake)
}

// putOff ends a turn before its request to the API.
func (t *turn) putOff(err error, notBefore time.Time) {
	t.permit.Return()
	t.err = err
	t.result.Note(decision.PutOff, err)
	t.end(ending{notBefore: notBefore, reread: t.job.reread})
}

// run polls the device and compares the answer. If there is news, the turn goes on
// with the publisher after run has returned; see publish.go. run returns the buffer.
func (t *turn) run(ctx context.Context, buf []byte) []byte {
	p, d := t.pool, t.job.d
	ctx, t.span = p.opts.Trace.Poll(ctx)
	t.doubts = p.state.doubts.Load()
	now := time.Now()
	if owner := p.parts.Owner; !owner.Owns(d.token()) || !now.Before(t.open) && !owner.Live() {
		t.putOff(errNotOurs, now.Add(suspectWait))
		return buf
	}
	if t.job.reread {
		if err := p.reread(ctx, d); err != nil {
			p.log.Debug("could not read a device's state", "device_id", d.id, "err", err)
			t.putOff(err, time.Now().Add(p.opts.BackoffInitial))
			return buf
		}
		t.job.reread = false
	}
	if again, err := p.opts.Quota.Admit(ctx, now, d.token(), d.day); err != nil {
		if !errors.Is(err, quota.ErrUsedUp) {
			again = time.Now().Add(p.opts.BackoffInitial)
			p.log.Debug("could not reserve daily quota", "device_id", d.id, "err", err)
		}
		t.putOff(err, again)
		return buf
	}
	t.began = time.Now()
	answer, err := p.parts.API.LastLocation(plaspy.WithPermit(ctx, t.permit), d.id, buf)
	if answer.Buf != nil {
		buf = answer.Buf[:0]
	}
	t.span.Observe(p.metrics.duration, time.Since(t.began).Seconds())
	p.parts.Circuit.Report(d.id, err)
	if err != nil {
		t.failed(ctx, err)
		return buf
	}
	if answer.Raw != nil {
		p.opts.Quota.Count(answer.At, d.day, 1)
	}
	if err := t.compare(ctx, answer.Raw, answer.At); err != nil {
		t.unusable(ctx, err)
	}
	return buf
}

// compare finds out whether an answer is news, and publishes it. After an error
// nothing was published and the turn has not ended.
func (t *turn) compare(ctx context.Context, raw []byte, at time.Time) error {
	p, d := t.pool, t.job.d
	t.at = at
	// The broker may have lost data meanwhile, or another replica published.
	if t.doubts != p.state.doubts.Load() && t.renew(ctx, &d.track) != nil {
		return errOutdated
	}
	n := track.News{Observed: at}
	if raw == nil { // the device has never reported
		t.unchanged(decision.Never)
		t.observe(nil, at)
		t.publish(ctx, n)
		return nil
	}
	hash, err := p.parser.Hash(raw)
	if err != nil {
		return err
	}
	if d.track.Same(hash) {
		t.unchanged(decision.Unchanged)
		t.observe(nil, at)
		t.unchangedNews(&n, raw, hash)
		t.publish(ctx, n)
		return nil
	}
	// The buffer is the worker's, and the fix outlives the poll.
	f, err := p.parser.Fix(slices.Clone(raw), hash)
	if err != nil {
		return err
	}
	found, err := t.readGap(ctx, f, at)
	if err != nil {
		return err
	}
	t.succeeded()
	if t.changed == nil {
		p.metrics.changed.Inc()
	}
	t.changed = f.Raw
	t.result.Note(decision.Changed, nil)
	t.result.NoteFields(&d.track, f, p.opts.IgnoreFields)
	if d.track.Known && f.Time.Before(d.track.Last.Time.Time()) {
		p.metrics.backwards.Inc()
	}
	if f.Unnamed != nil {
		t.complain("alert not published", f.Unnamed)
	}
	t.observe(f, at)
	if found.End != nil {
		t.result.NoteDetail("published the first part of a long gap; the rest follows")
		f, t.success = found.End, ending{notBefore: p.opts.Quota.Next(time.Now(), d.day), soon: true}
	}
	n.Rows, n.Since = found.Rows, found.Since
	n.Fixes = append(found.Fixes, f)
	t.publish(ctx, n)
	return nil
}

// readGap reads the gap before a fix, which may take a minute.
func (t *turn) readGap(ctx context.Context, f *track.Fix, at time.Time) (found gap.Found, err error) {
	p, d := t.pool, t.job.d
	if !p.gaps.Wanted() {
		return found, nil
	}
	g := &gap.Device{ID: d.id, Token: d.token(), Day: d.day, Patience: &d.patience, Complain: t.complain}
	return p.gaps.Read(ctx, g, &d.track, f, at)
}

// unchanged notes a poll that returned the last known location, or none.
func (t *turn) unchanged(r decision.Result) {
	t.pool.gaps.None(t.job.d.token(), &t.job.d.patience)
	t.succeeded()
	if t.changed == nil { // else the poll was counted
		t.pool.metrics.unchanged.Inc()
	}
	t.result.Note(r, nil)
}

// unchangedNews adds the news that an unchanged location may have: alerts that
// changed without it, and silence.
func (t *turn) unchangedNews(n *track.News, raw []byte, hash uint64) {
	p, d := t.pool, t.job.d
	silent := p.opts.SilentAfter > 0 && d.track.Known && !d.track.Silent && n.Observed.Sub(d.track.SeenAt) >= p.opts.SilentAfter
	alerts := p.ignoresAlerts || d.track.Alone()
	if !silent && !alerts {
		return
	}
	f, err := p.parser.Fix(slices.Clone(raw), hash)
	if err != nil {
		return
	}
	if alerts {
		n.Alerts = f
	}
	if silent {
		t.result.Note(decision.Silent, nil)
		n.Silent = f
	}
}

// observe sets the schedule's observation of the poll. A nil fix stands for the last
// known one.
func (t *turn) observe(f *track.Fix, at time.Time) {
	d := t.job.d
	o := &t.observed
	o.NotBefore = t.pool.opts.Quota.Next(at, d.day)
	switch last := &d.track.Last; {
	case f != nil:
		o.Fix, o.Changed, o.FixTime, o.Speed, o.Input = true, true, f.Time, f.Speed, f.Input
	case d.track.Known:
		o.Fix, o.FixTime, o.Speed, o.Input = true, last.Time.Time(), float64(last.Speed), last.Input
	default:
		o.Speed, o.Input = math.NaN(), track.InputsUnknown
	}
	t.success = ending{learnt: o}
}

// lastingFailure is the number of consecutive failures after which a device's error
// is logged even if other devices are fine.
const lastingFailure = 3

// failed ends a turn after a poll that was not answered.
func (t *turn) failed(ctx context.Context, err error) {
	p, d := t.pool, t.job.d
	t.err = err
	if ctx.Err() != nil {
		t.end(ending{})
		return
	}
	p.metrics.failed.Inc()
	t.result.Note(decision.Failed, err)
	class := plaspy.Classify(err)
	t.span.Fail(class.String())
	down := plaspy.IsOutage(err) && p.parts.Circuit.State().Open
	if !down && class != plaspy.Throttled {
		p.widespread.Failed(d.id, p.Owned(), err)
	}
	switch {
	case class == plaspy.Reject, class == plaspy.Forbidden:
		t.complain("poll refused", err)
	case class == plaspy.Throttled && deviceOnly(err):
		t.complain("API throttles requests for this device", err)
	case class == plaspy.Throttled || down: // nothing of this device alone
	case d.failures+1 >= lastingFailure:
		t.complain("polls keep failing", err)
	}
	if down {
		// The circuit holds all polls back. When it closes, no device should wait
		// for a backoff of its own.
		t.end(ending{})
		return
	}
	t.backOff(err)
}

// deviceOnly reports whether the API limits the requests for one device alone.
func deviceOnly(err error) bool {
	e, ok := errors.AsType[*plaspy.Error](err)
	return ok && e.DeviceOnly
}

// unusable ends a turn if its answer cannot be published, if it may be outdated, or if
// its gap could not be read.
func (t *turn) unusable(ctx context.Context, err error) {
	p, d := t.pool, t.job.d
	if ctx.Err() != nil {
		t.end(ending{})
		return
	}
	if errors.Is(err, errOutdated) {
		t.result.Note(decision.PutOff, err)
		t.end(ending{reread: true})
		return
	}
	if t.changed == nil { // else the poll was counted
		p.metrics.failed.Inc()
	}
	if errors.Is(err, track.ErrFix) {
		t.recovered()
		t.span.Fail("unusable")
		p.widespread.Failed(d.id, p.Owned(), err)
		t.complain("location not published", err)
		t.result.Note(decision.Unusable, err)
		t.end(ending{learnt: &schedule.Observation{NotBefore: p.opts.Quota.Next(time.Now(), d.day), Speed: math.NaN(), Input: track.InputsUnknown}})
		return
	}
	t.span.Fail(plaspy.Classify(err).String())
	t.result.Note(decision.PutOff, err)
	t.backOff(err)
}

// backOff leaves the device alone for a time that grows with its failures. Other
// devices are not affected.
func (t *turn) backOff(err error) {
	p, d := t.pool, t.job.d
	wait := backoff.Delay(p.opts.BackoffInitial, p.opts.BackoffMax, int(d.failures))
	if e, ok := errors.AsType[*plaspy.Error](err); ok {
		wait = max(wait, e.RetryAfter)
	}
	p.fleet.fail(d)
	t.end(ending{learnt: &schedule.Observation{Failed: true, NotBefore: time.Now().Add(wait)}})
}

// succeeded notes a poll with a usable answer.
func (t *turn) succeeded() {
	t.pool.widespread.Worked()
	t.recovered()
}

// recovered notes that the API answers the device's polls again.
func (t *turn) recovered() {
	d := t.job.d
	if d.failures == 0 {
		return
	}
	if d.complaint != noComplaint {
		t.pool.log.Info("device recovered", "device_id", d.id, "count", d.failures)
	}
	t.pool.fleet.clearFailures(d)
	d.complaint = noComplaint
}

// noComplaint is that of a device without trouble.
var noComplaint unique.Handle[string]

// complain logs a failure of a device once, until the failure changes.
func (t *turn) complain(what string, err error) {
	d, text := t.job.d, unique.Make(fmt.Sprintf("%s: %v", what, err))
	if d.complaint == text || t.pool.widespread.State().Polls > 0 { // one line reports that for all
		t.pool.log.Debug("device is still failing", "device_id", d.id, "reason", what, "err", err)
		return
	}
	d.complaint = text
	t.pool.log.Warn("device is failing", "device_id", d.id, "reason", what, "err", err)
}
