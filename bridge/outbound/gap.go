package outbound

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"plaspy-bridge/bridge/outbound/quota"
	"plaspy-bridge/bridge/outbound/schedule"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/plaspy/rawjson"
	"plaspy-bridge/publisher"
)

// gapPatience is how long polls of a device are put off because what lay before
// its fix cannot be read; then the fix is published without, and so are those
// that follow until the API answers again.
const gapPatience = time.Minute

// gapTrouble is that what lies in a device's gaps cannot be read.
type gapTrouble struct {
	since   time.Time
	without bool      // its fixes are published without it
	next    time.Time // when the API is asked again, then
}

// maxSeen is how many alerts a device remembers before those that no request
// can bring again are dropped.
const maxSeen = 256

// historyRow is one alert of the alert history.
type historyRow struct {
	alert, token string
	time         time.Time

	dateTime, latitude, longitude []byte // as spelled
	texts                         []byte
}

func (h *historyRow) event(p *Pool, d *device, observed time.Time) *publisher.Alert {
	return &publisher.Alert{
		DeviceID: d.id, Token: d.token, Name: d.title, Source: p.api.DeviceURL(d.id),
		Alert: h.alert, AlertToken: h.token, State: publisher.Raised, Texts: h.texts,
		DateTime: h.dateTime, Latitude: h.latitude, Longitude: h.longitude,
		FixTime: h.time, ObservedAt: observed, History: true,
	}
}

// is reports whether a stored alert is this row.
func (h *historyRow) is(s *publisher.Stored) bool {
	var body publisher.AlertBody
	if s == nil || json.Unmarshal(s.Body, &body) != nil || body.Source != publisher.SourceHistory || body.Alert != h.alert {
		return false
	}
	at, err := plaspy.ParseTime(body.DateTime)
	return err == nil && at.Equal(h.time)
}

// gap is what lay between the last published fix and the one just seen.
type gap struct {
	fixes []*fix
	rows  []historyRow
	since time.Time // where the alert history is still to be read from; zero: it was read
	// end is a fix within the gap up to which it was read, where it is too long
	// for one turn: it is published instead of the one just seen, which the next
	// poll finds again.
	end *fix
}

// gap asks the API for what lay before f, as far as that is wanted. An error
// means that the poll should be tried again.
func (p *Pool) gap(ctx context.Context, d *device, f *fix) (gap, error) {
	var g gap
	if !d.have || !p.opts.Backfill && !p.opts.AlertHistory || !f.time.After(d.fixTime) {
		p.noGap(d)
		return g, nil
	}
	if t := d.gapTrouble; t != nil && t.without && time.Since(t.next) > 10*gapPatience {
		d.gapTrouble = nil // that was another time
	}
	from := d.fixTime
	if !d.historyFrom.IsZero() {
		from = d.historyFrom
	}
	if t := d.gapTrouble; t != nil && t.without && time.Now().Before(t.next) {
		p.metrics.gapErrors.Inc()
		if p.opts.AlertHistory {
			g.since = from
		}
		return g, nil
	}
	asked, whole := 0, 0
	if p.opts.Backfill && f.time.Sub(d.fixTime) > p.opts.BackfillAfter {
		asked++
		began := time.Now()
		var err error
		if g.fixes, g.end, err = p.backfill(ctx, d, f); err == nil {
			whole++
		} else if err = p.giveUp(ctx, d, began, "back-fill failed, published without", err); err != nil {
			return g, err
		}
		if g.end != nil {
			f = g.end
		}
	}
	if p.opts.AlertHistory {
		asked++
		began := time.Now()
		var err error
		if g.rows, g.since, err = p.history(ctx, d, from, f, g.fixes); err == nil {
			whole++
		} else if err = p.giveUp(ctx, d, began, "alert history failed, asked again with the next fix", err); err != nil {
			return g, err
		}
	}
	if asked > 0 && asked == whole {
		d.gapTrouble = nil
		p.waits(d, time.Time{})
	}
	return g, nil
}

// noGap notes that a poll showed no gap, so that no fix waits for what lay in
// one.
func (p *Pool) noGap(d *device) {
	if t := d.gapTrouble; t != nil && !t.without {
		d.gapTrouble = nil
		p.waits(d, time.Time{})
	}
}

// waits notes since when a device's fix waits for what lay before it; the zero
// time: it does not.
func (p *Pool) waits(d *device, since time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if since.IsZero() {
		delete(p.waiting, d)
	} else {
		p.waiting[d] = since
	}
}

// waitsLong tells of fixes that have waited for a while, or gives "".
func (p *Pool) waitsLong() string {
	const grace = 3 * time.Second
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for d, since := range p.waiting {
		// One that is not polled meanwhile does not wait for the API.
		if age := time.Since(since); d.active && age > grace && age < 2*gapPatience {
			n++
		}
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("the API does not tell what lay before the last fix of %d devices, which waits for it, a minute at most", n)
}

// goOn has a device polled again at once, whose gap is not at its end. The fix
// just seen is for that poll to tell of.
func (p *Pool) goOn(d *device) schedule.Observation {
	d.say("the first part of a long gap is published, the rest comes next")
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.policy.Soon(now, d.id)
	return schedule.Observation{Failed: true, NotBefore: p.opts.Quota.Next(now, &d.day)}
}

// giveUp decides whether what lay in a gap is done without: where the API says
// no for good, or has not answered for a while. One device's history must not
// keep its position back for ever. An API that took long to fail is left alone
// for longer. began is when it was asked.
func (p *Pool) giveUp(ctx context.Context, d *device, began time.Time, what string, err error) error {
	now := time.Now()
	if d.gapTrouble == nil {
		d.gapTrouble = &gapTrouble{since: now}
	}
	t := d.gapTrouble
	class := plaspy.Classify(err)
	final := class == plaspy.Reject || class == plaspy.Forbidden || errors.Is(err, errFix)
	if ctx.Err() != nil || !final && !t.without && now.Sub(t.since) < p.gapPatience {
		p.waits(d, t.since)
		return err
	}
	t.without, t.next = true, now.Add(min(10*now.Sub(began), p.opts.BackoffMax))
	p.waits(d, time.Time{})
	p.metrics.gapErrors.Inc()
	p.complain(d, what, err)
	return nil
}

// quotaFrom narrows a range to what the device's daily quota has room for, at a
// result a second, and has that much of it spoken for. It reports false where
// there is no room.
func (p *Pool) quotaFrom(ctx context.Context, d *device, from, to time.Time) (time.Time, bool, error) {
	if !p.opts.Quota.Limited() {
		return from, true, nil
	}
	left := p.opts.Quota.Left(time.Now(), &d.day) / 2 // half is for the polls to come
	if left == 0 {
		return from, false, nil
	}
	if earliest := to.Add(-time.Duration(left) * time.Second); from.Before(earliest) {
		from = earliest
	}
	err := p.opts.Quota.Reserve(ctx, time.Now(), d.token, &d.day, min(left, int(to.Sub(from)/time.Second)+1))
	if errors.Is(err, quota.ErrUsedUp) { // another replica used it
		return from, false, nil
	}
	return from, err == nil, err
}

// returnQuota gives back the results that were reserved for a range and not used.
func (p *Pool) returnQuota(ctx context.Context, d *device) {
	if err := p.opts.Quota.Return(ctx, d.token, &d.day); err != nil {
		p.log.Debug("daily quota not returned", "device_id", d.id, "err", err)
	}
}

// backfill gives the fixes before f that the stream does not hold; end is not
// nil where that is only the first part of them, and then their last.
func (p *Pool) backfill(ctx context.Context, d *device, f *fix) (fixes []*fix, end *fix, err error) {
	from, ok, err := p.quotaFrom(ctx, d, d.fixTime, f.time)
	if err != nil || !ok {
		return nil, nil, err
	}
	until, err := p.pieces(ctx, from, f.time,
		func(ctx context.Context, body []byte) (plaspy.Answer, error) {
			return p.api.Locations(ctx, d.id, body, plaspy.PostOptions{})
		},
		func(answer []byte) error {
			part, n, err := p.readFixes(answer, d.fixTime, f.time)
			p.opts.Quota.Count(time.Now(), &d.day, n)
			fixes = append(fixes, part...)
			return err
		})
	p.returnQuota(ctx, d)
	if err != nil && len(fixes) == 0 {
		return nil, nil, fmt.Errorf("read locations: %w", err)
	}
	// Each change once: not what the stream holds already, nor a repetition.
	slices.SortStableFunc(fixes, func(a, b *fix) int { return a.time.Compare(b.time) })
	// Pieces of a range share the instant between them.
	last, second, seen := d.hash, time.Time{}, map[uint64]bool{}
	fixes = slices.DeleteFunc(fixes, func(b *fix) bool {
		if !b.time.Equal(second) {
			second = b.time
			clear(seen)
		}
		same := b.hash == last || seen[b.hash]
		last, seen[b.hash] = b.hash, true
		return same
	})
	switch n := len(fixes); {
	case until.Before(f.time) && n == 0:
		return nil, nil, fmt.Errorf("read locations: %w", cmp.Or(err, errLongGap))
	case until.Before(f.time):
		fixes, end = fixes[:n-1], fixes[n-1]
	case n > 0 && fixes[n-1].hash == f.hash:
		fixes = fixes[:n-1]
	}
	p.metrics.backfilled.Add(float64(len(fixes)))
	if end != nil {
		p.metrics.backfilled.Inc()
	}
	return fixes, end, nil
}

// readFixes gives the usable fixes between two times, by their own time, and
// how many results the answer had.
func (p *Pool) readFixes(answer []byte, after, before time.Time) ([]*fix, int, error) {
	var fixes []*fix
	n := 0
	err := elements(answer, "locations", func(raw []byte) bool {
		n++
		hash, err := rawjson.Hash(raw, p.ignore)
		if err != nil {
			return true
		}
		f, err := parseFix(raw, hash)
		if err == nil && f.time.After(after) && f.time.Before(before) {
			f.backfilled = true
			fixes = append(fixes, f)
		}
		return true
	})
	return fixes, n, err
}

// history gives the alerts from a time to a fix that were not published before,
// neither from the history nor with a polled fix, and from where on it was not
// read, zero: it was.
func (p *Pool) history(ctx context.Context, d *device, from time.Time, f *fix, between []*fix) (rows []historyRow, since time.Time, err error) {
	start := from
	from, ok, err := p.quotaFrom(ctx, d, from, f.time)
	if err != nil {
		return nil, start, err
	}
	if !ok {
		return nil, time.Time{}, nil
	}
	until, err := p.pieces(ctx, from, f.time,
		func(ctx context.Context, body []byte) (plaspy.Answer, error) {
			return p.api.Alerts(ctx, d.id, body, plaspy.PostOptions{})
		},
		func(answer []byte) error {
			n := 0
			err := elements(answer, "alerts", func(raw []byte) bool {
				n++
				rows = appendRows(rows, raw, from, f)
				return true
			})
			p.opts.Quota.Count(time.Now(), &d.day, n)
			return err
		})
	p.returnQuota(ctx, d)
	if err != nil && len(rows) == 0 {
		return nil, start, fmt.Errorf("read alerts: %w", err)
	}
	if until.Before(f.time) {
		since = until
	}
	for _, polled := range append(slices.Clone(between), f) {
		for _, a := range polled.alerts {
			d.saw(a, polled.time)
		}
	}
	d.forgetSeen(from)
	slices.SortStableFunc(rows, func(a, b historyRow) int { return cmp.Or(a.time.Compare(b.time), cmp.Compare(a.alert, b.alert)) })
	published := make(map[alertKey]bool, len(rows))
	return slices.DeleteFunc(rows, func(r historyRow) bool {
		k := alertKey{r.alert, r.time.UnixNano()}
		_, seen := d.seenAlerts[k]
		seen = seen || published[k]
		published[k] = true
		return seen
	}), since, nil
}

func (d *device) forgetSeen(before time.Time) {
	if len(d.seenAlerts) < maxSeen {
		return
	}
	for k := range d.seenAlerts {
		if k.at < before.UnixNano() {
			delete(d.seenAlerts, k)
		}
	}
}

// appendRows reads one entry of the alert history, which may name several
// alerts. A row without a time in the range, or without a name, is passed over.
func appendRows(rows []historyRow, raw []byte, from time.Time, f *fix) []historyRow {
	r := historyRow{latitude: f.latitude, longitude: f.longitude}
	var names []string
	_ = rawjson.Members(raw, func(key, value []byte) bool { // checked by the walk around it
		switch string(key) {
		case "dateTime":
			r.dateTime = value
		case "latitude":
			if _, err := degrees(value, "latitude", 90); err == nil {
				r.latitude = value
			}
		case "longitude":
			if _, err := degrees(value, "longitude", 180); err == nil {
				r.longitude = value
			}
		case "text":
			if len(value) > 2 && value[0] == '"' {
				r.texts = slices.Concat([]byte("["), value, []byte("]"))
			}
		case "alerts":
			names, _ = stringList(value)
		}
		return true
	})
	var text string
	if json.Unmarshal(r.dateTime, &text) != nil {
		return rows
	}
	var err error
	if r.time, err = plaspy.ParseTime(text); err != nil || r.time.Before(from) || r.time.After(f.time) {
		return rows
	}
	for _, r.alert = range names {
		if r.token, err = publisher.Token(r.alert); err == nil {
			rows = append(rows, r)
		}
	}
	return rows
}

// elements calls f for each element of the array that an answer holds under a
// name; an answer without it holds none.
func elements(answer []byte, name string, f func(raw []byte) bool) error {
	var list []byte
	if err := rawjson.Members(answer, func(key, value []byte) bool {
		if string(key) == name {
			list = value
		}
		return true
	}); err != nil {
		return fmt.Errorf("%w: %w", errFix, err)
	}
	if list == nil || bytes.Equal(list, []byte("null")) {
		return nil
	}
	if err := rawjson.Elements(list, f); err != nil {
		return fmt.Errorf("%w: %s: %w", errFix, name, err)
	}
	return nil
}

func rangeBody(from, to time.Time) []byte {
	b := append([]byte(`{"from":"`), from.UTC().Format(time.RFC3339Nano)...)
	b = append(append(b, `","to":"`...), to.UTC().Format(time.RFC3339Nano)...)
	return append(b, `"}`...)
}
