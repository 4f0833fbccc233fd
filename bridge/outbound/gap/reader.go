package gap

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"plaspy-bridge/bridge/outbound/quota"
	"plaspy-bridge/bridge/outbound/track"
	"plaspy-bridge/bridge/plaspy"
)

// API is the part of the REST API that gaps are read from. Its methods are safe
// for concurrent use; their errors are classified by [plaspy.Classify].
type API interface {
	Locations(ctx context.Context, id string, body []byte, opt plaspy.PostOptions) (plaspy.Answer, error)
	Alerts(ctx context.Context, id string, body []byte, opt plaspy.PostOptions) (plaspy.Answer, error)
}

// Options are the settings of a reader. The durations are positive.
type Options struct {
	Backfill bool
	After    time.Duration // back-fill only gaps that are longer
	History  bool
	Max      time.Duration // the furthest back that a gap reaches
	// Patience is how long a fix waits for a gap that cannot be read.
	Patience       time.Duration
	BackoffInitial time.Duration // between requests that fail
	BackoffMax     time.Duration
	Quota          *quota.Quota // nil means no limit
	Parser         *track.Parser
	Log            *slog.Logger
	// Found is called with the number of fixes that back-fill found, Missing once
	// for each gap of which a part is missing.
	Found   func(fixes int)
	Missing func()
}

// Reader reads gaps. It is safe for concurrent use.
type Reader struct {
	api               API
	opts              Options
	locations, alerts pause

	// ending is done once the process stops.
	ending context.Context //nolint:containedctx // it outlives any one request
	end    context.CancelFunc

	mu      sync.Mutex
	waiting map[string]time.Time // tokens of devices with a fix that waits for its gap, and since when
}

// New makes a reader.
func New(o Options, api API) *Reader {
	r := &Reader{api: api, opts: o, waiting: make(map[string]time.Time)}
	r.ending, r.end = context.WithCancel(context.Background())
	return r
}

// Device is the device of a gap.
type Device struct {
	ID, Token string
	Day       *quota.Day
	Patience  *Patience
	// Complain logs trouble once.
	Complain func(what string, err error)
}

// Found is the content of a gap.
type Found struct {
	Fixes []*track.Fix // in order
	Rows  []track.Row  // in order; those that were published are among them
	Since time.Time    // [track.News.Since]
	// End is the last fix of the part that was read, if the gap is too long for
	// one turn: it is published instead of the fix just seen.
	End *track.Fix
}

// Wanted reports whether gaps are read at all.
func (r *Reader) Wanted() bool { return r.opts.Backfill || r.opts.History }

// Read reads the gap before a fix, as far as the settings ask for it. An error
// means that the poll should be made again.
func (r *Reader) Read(ctx context.Context, d *Device, t *track.Track, f *track.Fix, observed time.Time) (Found, error) {
	found := Found{Since: t.HistoryFrom.Time()}
	if !t.Known {
		r.None(d.Token, d.Patience)
		return found, nil
	}
	failed := false
	from, to, cut := t.Times.Gap(f.Time, observed, r.opts.Max)
	if from.Before(to) && r.opts.Backfill && f.Time.Sub(from) > r.opts.After {
		r.shortened(d, cut)
		var err error
		if found.Fixes, found.End, err = r.backfill(ctx, d, t, f, from, to); err != nil {
			return found, err
		}
		failed = d.Patience.trouble != nil
	}
	if found.End != nil {
		f = found.End
	}
	if from, to, cut := t.HistoryGap(f.Time, observed, r.opts.Max); from.Before(to) && r.opts.History {
		r.shortened(d, cut)
		var err error
		if found.Rows, found.Since, err = r.history(ctx, d, f, from, to); err != nil {
			return found, err
		}
		failed = failed || d.Patience.trouble != nil
	}
	if !failed {
		r.None(d.Token, d.Patience)
	}
	return found, nil
}

// None notes that a poll showed no gap, so that no fix waits for one.
func (r *Reader) None(token string, p *Patience) {
	if t := p.trouble; t != nil && !t.without {
		p.trouble = nil
		r.wait(token, time.Time{})
	}
}

// Waiting reports in one sentence that fixes wait for their gaps, or returns "".
func (r *Reader) Waiting() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for token, since := range r.waiting {
		if time.Since(since) < 2*r.opts.Patience {
			n++
		} else { // it is not polled any more
			delete(r.waiting, token)
		}
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("the API does not answer the back-fill requests of %d devices; their newest fixes wait for at most a minute", n)
}

// Hurry ends the waits of fixes for the alert history, because the process stops. The next
// process reads that history. It also polls again a fix with a back-fill that cannot be read.
func (r *Reader) Hurry() { r.end() }

// hurried reports whether a fix is published without its alert history.
func (r *Reader) hurried() bool { return r.ending.Err() != nil && !r.opts.Backfill }

// shortened counts and logs a gap that is longer than what is asked for.
func (r *Reader) shortened(d *Device, cut bool) {
	if cut {
		r.opts.Missing()
		r.opts.Log.Info("gap is longer than BRIDGE_BACKFILL_MAX, skipping its beginning", "device_id", d.ID)
	}
}

// ask performs the requests of a gap. It returns false if the fix should be published
// without the gap, and an error if the poll should be made again. A fix waits for its
// back-fill only: the alert history is requested again with the next fix.
func (r *Reader) ask(ctx context.Context, d *Device, pause *pause, what string, requests func(context.Context) error) (bool, error) {
	began := time.Now()
	if r.hurried() || d.Patience.without(began) || !pause.over(began) {
		r.opts.Missing()
		return false, nil
	}
	err := r.until(ctx, requests)
	now := time.Now()
	if err == nil {
		pause.answered()
		d.Patience.trouble = nil
		r.wait(d.Token, time.Time{})
		return true, nil
	}
	if r.hurried() {
		r.opts.Missing()
		return false, nil
	}
	if ctx.Err() != nil {
		return false, err
	}
	class := plaspy.Classify(err)
	final := class == plaspy.Reject || class == plaspy.Forbidden || errors.Is(err, track.ErrFix)
	if final {
		pause.refused(now, &r.opts)
	}
	if !d.Patience.failed(began, now, final, &r.opts) {
		if pause == &r.alerts {
			return false, nil
		}
		r.wait(d.Token, d.Patience.trouble.since)
		return false, err
	}
	r.wait(d.Token, time.Time{})
	r.opts.Missing()
	d.Complain(what, err)
	return false, nil
}

// until performs requests, which end with [Reader.Hurry] if the fix need not wait for them.
func (r *Reader) until(ctx context.Context, requests func(context.Context) error) error {
	if r.opts.Backfill {
		return requests(ctx)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.ending, cancel)()
	return requests(ctx)
}

// backfill returns the fixes between from and to that no poll saw. end is their
// last if they are only the first part.
func (r *Reader) backfill(ctx context.Context, d *Device, t *track.Track, f *track.Fix, from, to time.Time) (fixes []*track.Fix, end *track.Fix, err error) {
	narrow, ok, err := r.reserve(ctx, d, from, to, time.Second)
	if err != nil || !ok {
		return nil, nil, err
	}
	start, until := to.Add(-narrow), to
	ok, err = r.ask(ctx, d, &r.locations, "back-fill failed, published without", func(ctx context.Context) error {
		var err error
		until, err = r.pieces(ctx, start, to, r.api.Locations, d.ID, func(answer []byte) error {
			part, n, err := r.fixes(answer, start, to)
			r.opts.Quota.Count(time.Now(), d.Day, n)
			fixes = append(fixes, part...)
			return err
		})
		if fixes = unique(fixes, t.Last.Hash); err != nil && len(fixes) > 0 {
			err = nil // the rest comes next
		}
		if err == nil && until.Before(to) && len(fixes) == 0 {
			err = errLongGap
		}
		return err
	})
	r.giveBack(ctx, d)
	if err != nil || !ok {
		return nil, nil, wrap("read locations", err)
	}
	switch n := len(fixes); {
	case until.Before(to):
		fixes, end = fixes[:n-1], fixes[n-1]
		r.opts.Found(1)
	case n > 0 && fixes[n-1].Hash == f.Hash:
		fixes = fixes[:n-1]
	}
	r.opts.Found(len(fixes))
	return fixes, end, nil
}

// unique sorts fixes by time and drops repetitions. last is the hash of the
// location before them.
func unique(fixes []*track.Fix, last uint64) []*track.Fix {
	slices.SortStableFunc(fixes, func(a, b *track.Fix) int { return a.Time.Compare(b.Time) })
	// Pieces of a range share the instant between them.
	second, seen := time.Time{}, map[uint64]bool{}
	return slices.DeleteFunc(fixes, func(f *track.Fix) bool {
		if !f.Time.Equal(second) {
			second = f.Time
			clear(seen)
		}
		same := f.Hash == last || seen[f.Hash]
		last, seen[f.Hash] = f.Hash, true
		return same
	})
}

// fixes returns the usable fixes of an answer that lie between two times, and the
// number of results in it.
func (r *Reader) fixes(answer []byte, after, before time.Time) ([]*track.Fix, int, error) {
	var fixes []*track.Fix
	n := 0
	err := elements(answer, "locations", func(raw []byte) bool {
		n++
		hash, err := r.opts.Parser.Hash(raw)
		if err != nil {
			return true
		}
		f, err := r.opts.Parser.Fix(raw, hash)
		if err == nil && f.Time.After(after) && f.Time.Before(before) {
			f.Backfilled = true
			fixes = append(fixes, f)
		}
		return true
	})
	return fixes, n, err
}

// history returns the alerts of the history from from to to, and the time from
// which it is still to be read; zero means it was read.
func (r *Reader) history(ctx context.Context, d *Device, f *track.Fix, from, to time.Time) (rows []track.Row, since time.Time, err error) {
	// The oldest alerts come first: the rest is read later.
	narrow, ok, err := r.reserve(ctx, d, from, to, alertEvery)
	if err != nil || !ok {
		return nil, from, err
	}
	end := from.Add(narrow)
	until := from
	ok, err = r.ask(ctx, d, &r.alerts, "alert history failed, asked again with the next fix", func(ctx context.Context) error {
		var err error
		until, err = r.pieces(ctx, from, end, r.api.Alerts, d.ID, func(answer []byte) error {
			n := 0
			err := elements(answer, "alerts", func(raw []byte) bool {
				n++
				rows = r.appendRows(rows, raw, from, end, f)
				return true
			})
			r.opts.Quota.Count(time.Now(), d.Day, n)
			return err
		})
		if err != nil && len(rows) > 0 {
			err = nil
		}
		return err
	})
	r.giveBack(ctx, d)
	if err != nil || !ok {
		return nil, from, wrap("read alerts", err)
	}
	slices.SortStableFunc(rows, func(a, b track.Row) int { return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Alert, b.Alert)) })
	if until.Before(to) {
		return rows, until, nil
	}
	return rows, time.Time{}, nil
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// alertEvery is how often a device raises an alert at most, by assumption: so
// many results of the daily quota are reserved.
const alertEvery = 30 * time.Second

// reserve reserves results of the daily quota for a range with one result in
// each interval. It returns how much of the range there are results for; false
// means none. A range of which a part is missing is counted.
func (r *Reader) reserve(ctx context.Context, d *Device, from, to time.Time, interval time.Duration) (time.Duration, bool, error) {
	length := to.Sub(from)
	if !r.opts.Quota.Limited() {
		return length, true, nil
	}
	left := r.opts.Quota.Left(time.Now(), d.Day) / 2 // half is for the polls to come
	if room := time.Duration(left) * interval; room < length {
		r.opts.Missing()
		length = room
	}
	if left == 0 {
		return 0, false, nil
	}
	err := r.opts.Quota.Reserve(ctx, time.Now(), d.Token, d.Day, min(left, int(length/interval)+1))
	if errors.Is(err, quota.ErrUsedUp) { // another replica used it
		r.opts.Missing()
		return 0, false, nil
	}
	return length, err == nil, err
}

func (r *Reader) giveBack(ctx context.Context, d *Device) {
	if err := r.opts.Quota.Return(ctx, d.Token, d.Day); err != nil {
		r.opts.Log.Debug("could not return unused daily quota", "device_id", d.ID, "err", err)
	}
}

// wait notes since when the fix of a device waits for its gap. The zero time means that
// it does not wait.
func (r *Reader) wait(token string, since time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if since.IsZero() {
		delete(r.waiting, token)
	} else {
		r.waiting[token] = since
	}
}
