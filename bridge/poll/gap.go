package poll

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/plaspy/rawjson"
	"plaspy-bridge/publisher"
)

// gapPatience is how long polls of a device are put off because what lay before
// its fix cannot be read; then the fix is published without.
const gapPatience = time.Minute

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
}

// gap asks the API for what lay before f, as far as that is wanted. An error
// means that the poll should be tried again.
func (p *Pool) gap(ctx context.Context, d *device, f *fix) (gap, error) {
	var g gap
	if !d.have || !p.opts.Backfill && !p.opts.AlertHistory || !f.time.After(d.fixTime) {
		return g, nil
	}
	if p.opts.Backfill && f.time.Sub(d.fixTime) > p.opts.BackfillAfter {
		var err error
		if g.fixes, err = p.backfill(ctx, d, f); err != nil {
			if err = p.giveUp(ctx, d, "back-fill failed, published without", err); err != nil {
				return g, err
			}
		}
	}
	if p.opts.AlertHistory {
		from := d.fixTime
		if !d.historyFrom.IsZero() {
			from = d.historyFrom
		}
		var err error
		if g.rows, err = p.history(ctx, d, from, f, g.fixes); err != nil {
			if err = p.giveUp(ctx, d, "alert history failed, asked again with the next fix", err); err != nil {
				return g, err
			}
			g.since = from
		}
	}
	d.gapSince = time.Time{}
	return g, nil
}

// giveUp decides whether what lay in a gap is done without: where the API says
// no for good, or has not answered for a while. One device's history must not
// keep its position back for ever.
func (p *Pool) giveUp(ctx context.Context, d *device, what string, err error) error {
	now := time.Now()
	if d.gapSince.IsZero() {
		d.gapSince = now
	}
	final := plaspy.Classify(err) == plaspy.Reject || errors.Is(err, errFix)
	if ctx.Err() != nil || !final && now.Sub(d.gapSince) < p.gapPatience {
		return err
	}
	p.metrics.gapErrors.Inc()
	p.complain(d, what, err)
	return nil
}

// from narrows a range to what the device's daily quota has room for, at a
// result a second.
func (p *Pool) quotaFrom(d *device, from, to time.Time) (time.Time, bool) {
	if p.opts.DailyResults <= 0 {
		return from, true
	}
	left := d.quota.left(time.Now(), p.opts.DailyResults) / 2 // half is for the polls to come
	if left == 0 {
		return from, false
	}
	if earliest := to.Add(-time.Duration(left) * time.Second); from.Before(earliest) {
		return earliest, true
	}
	return from, true
}

func (p *Pool) backfill(ctx context.Context, d *device, f *fix) ([]*fix, error) {
	from, ok := p.quotaFrom(d, d.fixTime, f.time)
	if !ok {
		return nil, nil
	}
	answer, err := p.api.Locations(plaspy.WithKind(ctx, plaspy.Poll), d.id, rangeBody(from, f.time), plaspy.PostOptions{})
	if err != nil {
		return nil, fmt.Errorf("read locations: %w", err)
	}
	fixes, n, err := p.readFixes(answer.Body, d.fixTime, f.time)
	d.quota.add(time.Now(), n)
	if err != nil {
		return nil, fmt.Errorf("read locations: %w", err)
	}
	p.metrics.backfilled.Add(float64(len(fixes)))
	// Each change once: not what the stream holds already, nor a repetition.
	last := d.hash
	fixes = slices.DeleteFunc(fixes, func(b *fix) bool {
		same := b.hash == last
		last = b.hash
		return same
	})
	if n := len(fixes); n > 0 && fixes[n-1].hash == f.hash {
		fixes = fixes[:n-1]
	}
	return fixes, nil
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
	slices.SortStableFunc(fixes, func(a, b *fix) int { return a.time.Compare(b.time) })
	return fixes, n, err
}

// history gives the alerts from a time to a fix that were not published before,
// neither from the history nor with a polled fix.
func (p *Pool) history(ctx context.Context, d *device, from time.Time, f *fix, between []*fix) ([]historyRow, error) {
	from, ok := p.quotaFrom(d, from, f.time)
	if !ok {
		return nil, nil
	}
	answer, err := p.api.Alerts(plaspy.WithKind(ctx, plaspy.Poll), d.id, rangeBody(from, f.time), plaspy.PostOptions{})
	if err != nil {
		return nil, fmt.Errorf("read alerts: %w", err)
	}
	for _, polled := range append(slices.Clone(between), f) {
		for _, a := range polled.alerts {
			d.saw(a, polled.time)
		}
	}
	var rows []historyRow
	n := 0
	err = elements(answer.Body, "alerts", func(raw []byte) bool {
		n++
		rows = appendRows(rows, raw, from, f)
		return true
	})
	d.quota.add(time.Now(), n)
	if err != nil {
		return nil, fmt.Errorf("read alerts: %w", err)
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
	}), nil
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
