package outbound

import (
	"context"
	"errors"
	"fmt"
	"time"

	"plaspy-bridge/bridge/outbound/schedule"
)

// minHead is how many results a device may use ahead of an even spread over the
// day, where a quarter of its quota is less.
const minHead = 10

// blocks is into how many parts a day's quota is cut for the ledger: a restart,
// or a move to another replica, forfeits what is left of one part.
const blocks = 32

// errQuota puts a poll off whose device has used up what it may.
var errQuota = errors.New("the daily quota of results is used up, or too far ahead of an even spread over the day")

// quota counts the results that one device used on one UTC day. What the ledger
// holds of it is how many are spoken for: this process may use results up to
// there without asking again, and whoever comes after it counts them as used.
type quota struct {
	day      int32  // days since 1970
	from     int32  // second of the day at which counting began
	used     int32  // results that this process used, or knows to be spoken for
	held     int32  // up to where the ledger has them spoken for
	revision uint64 // of the ledger's entry as last seen; 0: none
}

const secondsPerDay = 24 * 60 * 60

// add counts results.
func (q *quota) add(now time.Time, n int) {
	q.turn(now)
	q.used = int32(min(int64(q.used)+int64(n), 1<<30))
}

// turn begins another day. A day that another replica's clock has begun already
// is not taken back.
func (q *quota) turn(now time.Time) {
	seconds := now.Unix()
	day := int32(seconds / secondsPerDay)
	switch {
	case q.day == 0: // the first day is spread over what is left of it
		q.day, q.from = day, int32(seconds%secondsPerDay)
	case q.day < day:
		*q = quota{day: day, revision: q.revision}
	}
}

// left is how many results the day's quota still has.
func (q *quota) left(now time.Time, limit int) int {
	q.turn(now)
	return max(limit-int(q.used), 0)
}

// head is how many results may be used ahead of the even spread.
func head(limit int) int64 { return int64(max(limit/4, minHead)) }

// next is when the device may use another result, zero for at once: results are
// spread evenly over the day, with a head start of a quarter of them, so that a
// busy morning does not leave a device unseen in the evening.
func (q *quota) next(now time.Time, limit int) time.Time {
	if limit <= 0 {
		return time.Time{}
	}
	q.turn(now)
	midnight := time.Unix((int64(q.day)+1)*secondsPerDay, 0)
	if int(q.used) >= limit {
		return midnight
	}
	ahead := int64(q.used) + 1 - head(limit)
	if ahead <= 0 {
		return time.Time{}
	}
	second := int64(q.from) + (ahead*secondsPerDay+int64(limit)-1)/int64(limit)
	at := time.Unix(int64(q.day)*secondsPerDay+second, 0)
	switch {
	case at.After(midnight):
		return midnight
	case at.After(now):
		return at
	}
	return time.Time{}
}

// early is how much sooner than the even spread asks for a poll may come: the
// schedule's clock is not to the millisecond this one.
const early = time.Second

// allot sees to it that a poll's result is within the device's daily quota and
// spoken for in the ledger. False: it is not, and the turn is over.
func (p *Pool) allot(ctx context.Context, j job) bool {
	limit := p.opts.DailyResults
	if limit <= 0 {
		return true
	}
	d, now := j.d, time.Now()
	if at := d.quota.next(now, limit); !at.IsZero() && (at.Sub(now) > early || d.quota.left(now, limit) == 0) {
		d.came(resultPutOff, errQuota)
		j.permit.Return()
		p.release(d, schedule.Observation{Failed: true, NotBefore: at})
		return false
	}
	err := p.reserve(ctx, d, 1)
	if err == nil {
		return true
	}
	d.came(resultPutOff, err)
	j.permit.Return()
	again := now.Add(p.opts.BackoffInitial)
	if errors.Is(err, errQuota) { // another replica used it
		again = d.quota.next(now, limit)
	} else {
		p.log.Debug("daily quota not reserved", "device_id", d.id, "err", err)
	}
	p.release(d, schedule.Observation{Failed: true, NotBefore: again})
	return false
}

// maxMoved is how often in a row an entry may turn out to have been written by
// somebody else before the poll is put off.
const maxMoved = 4

// reserve has n results of the device's quota spoken for before they are asked
// for. Its error is errQuota where they are not there, or the ledger's.
func (p *Pool) reserve(ctx context.Context, d *device, n int) error {
	q, limit := &d.quota, p.opts.DailyResults
	for moved := 0; ; moved++ {
		now := time.Now()
		switch {
		case n > q.left(now, limit):
			return errQuota
		case p.opts.Ledger == nil, int(q.used)+n <= int(q.held):
			return nil
		}
		want := min(limit, int(q.used)+max(n, limit/blocks))
		revision, err := p.opts.Ledger.Write(ctx, d.token, q.entry(want), q.revision)
		switch {
		case err == nil:
			q.held, q.revision = int32(want), revision
			return nil
		case !errors.Is(err, ErrMoved) || moved == maxMoved:
			return fmt.Errorf("reserve daily quota: %w", err)
		}
		e, revision, err := p.opts.Ledger.Entry(ctx, d.token)
		if err != nil {
			return fmt.Errorf("read daily quota: %w", err)
		}
		q.adopt(now, limit, e, revision)
	}
}

// giveBack puts back what was reserved for a gap and not used, but for a part
// as usual: a restart would forfeit it.
func (p *Pool) giveBack(ctx context.Context, d *device) {
	q, limit := &d.quota, p.opts.DailyResults
	keep := int(q.used) + limit/blocks
	if p.opts.Ledger == nil || int(q.held) <= keep+limit/blocks {
		return
	}
	// Whether or not the answer comes, no more than this is used from now on.
	q.held = int32(keep)
	revision, err := p.opts.Ledger.Write(ctx, d.token, q.entry(keep), q.revision)
	if err != nil {
		p.log.Debug("daily quota not given back", "device_id", d.id, "err", err)
		return
	}
	q.revision = revision
}

// entry is what the ledger is to hold.
func (q *quota) entry(reserved int) Entry {
	return Entry{Day: int(q.day), From: int(q.from), Reserved: reserved}
}

// adopt takes what the ledger holds for the device. Everything that another
// process had spoken for counts as used; what this one has left of its own is
// forfeited with it, since it cannot be told apart.
func (q *quota) adopt(now time.Time, limit int, e Entry, revision uint64) {
	if revision == q.revision && revision != 0 {
		return // nobody else wrote it
	}
	first := q.day == 0
	q.turn(now)
	q.revision = revision
	over := max(q.used-q.held, 0)
	today := int(now.Unix() / secondsPerDay)
	switch {
	case revision == 0: // gone, with what it said
		q.held = q.used
		return
	case !e.valid(), e.Day > today+1:
		// Not the bridge's. Before it was spoilt no more was used than the even
		// spread allowed.
		second := now.Unix() % secondsPerDay
		e = Entry{Day: today, Reserved: int(min(int64(limit), head(limit)+int64(limit)*second/secondsPerDay))}
	}
	switch {
	case e.Day < int(q.day):
		q.held = q.used
		return
	case e.Day > int(q.day): // its clock is ahead: its day is as good as this one
		q.day, over = int32(e.Day), 0
	}
	if first || e.From < int(q.from) {
		q.from = int32(e.From)
	}
	q.held = int32(min(e.Reserved, 1<<29))
	q.used = max(q.used, q.held+over)
}

// loadQuotas reads what the ledger holds of all devices.
func (p *Pool) loadQuotas(ctx context.Context) (map[string]ledgerRow, error) {
	if p.opts.Ledger == nil || p.opts.DailyResults <= 0 {
		return nil, nil
	}
	rows := make(map[string]ledgerRow)
	err := p.opts.Ledger.Entries(ctx, func(token string, e Entry, revision uint64) {
		rows[token] = ledgerRow{e, revision}
	})
	if err != nil {
		return nil, fmt.Errorf("read daily quotas: %w", err)
	}
	return rows, nil
}

// ledgerRow is an entry as it was read.
type ledgerRow struct {
	Entry
	revision uint64
}

// takeQuotas runs under the mutex. A device that is busy finds out by itself,
// when it next writes.
func (p *Pool) takeQuotas(now time.Time, rows map[string]ledgerRow) {
	for token, row := range rows {
		// One that is at a later revision wrote it after it was read.
		if d := p.devices[token]; d != nil && !d.busy && d.quota.revision < row.revision {
			d.quota.adopt(now, p.opts.DailyResults, row.Entry, row.revision)
		}
	}
}
