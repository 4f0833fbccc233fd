package quota

import (
	"context"
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// memory is a store in memory that fails writes on demand.
type memory struct {
	all      map[string]Stored
	revision uint64
	fail     func() (before, after bool) // an error instead of the write, or instead of its answer
	writes   int
}

var errLost = errors.New("no answer")

func (m *memory) All(_ context.Context, f func(string, Reservation, uint64)) error {
	for token, s := range m.all {
		f(token, s.Reservation, s.Revision)
	}
	return nil
}

func (m *memory) Get(_ context.Context, token string) (Reservation, uint64, error) {
	s := m.all[token]
	return s.Reservation, s.Revision, nil
}

func (m *memory) Put(_ context.Context, token string, r Reservation, revision uint64) (uint64, error) {
	var before, after bool
	if m.fail != nil {
		before, after = m.fail()
	}
	switch {
	case before:
		return 0, errLost
	case m.all[token].Revision != revision:
		return 0, ErrChanged
	}
	m.writes++
	m.revision++
	if m.all == nil {
		m.all = map[string]Stored{}
	}
	m.all[token] = Stored{r, m.revision}
	if after {
		return 0, errLost
	}
	return m.revision, nil
}

// TestQuotaHoldsForAllProcesses lets processes use one device's quota in any
// order, with restarts, loads, and writes that fail before or after they take
// effect. No day may exceed its limit, and no history may starve the device.
func TestQuotaHoldsForAllProcesses(t *testing.T) {
	type process struct {
		*Quota
		day Day
	}
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 200).Draw(t, "limit")
		chance := func(name string, n int) bool { return rapid.IntRange(1, n).Draw(t, name) == n }
		failing := true
		store := &memory{fail: func() (bool, bool) { return failing && chance("fail", 8), failing && chance("lose", 8) }}
		start := func() *process { return &process{Quota: New(limit, store)} }
		all := []*process{start(), start(), start()}
		clock, used := now, map[int64]int{}
		use := func(p *process, n, of int) {
			if p.Reserve(t.Context(), clock, "d", &p.day, of) != nil {
				return
			}
			p.Count(clock, &p.day, n)
			day := clock.Unix() / secondsPerDay
			if used[day] += n; used[day] > limit {
				t.Fatalf("%d results in a day, the limit is %d", used[day], limit)
			}
		}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			clock = clock.Add(time.Duration(rapid.IntRange(0, 1200).Draw(t, "seconds")) * time.Second)
			i := rapid.IntRange(0, len(all)-1).Draw(t, "process")
			p := all[i]
			switch rapid.IntRange(0, 12).Draw(t, "step") {
			case 0:
				all[i] = start()
			case 1:
				rows, err := p.Load(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for _, s := range rows {
					p.Adopt(clock, &p.day, s)
				}
			case 2:
				_ = p.Return(t.Context(), "d", &p.day)
			default:
				n := rapid.IntRange(1, 7).Draw(t, "reserved")
				use(p, rapid.IntRange(1, n).Draw(t, "used"), n)
			}
		}
		failing = false
		clock = clock.Add(24 * time.Hour)
		for range limit {
			use(all[0], 1, 1)
		}
		if got := used[clock.Unix()/secondsPerDay]; got != limit {
			t.Fatalf("%d results on a day without failures, the limit is %d", got, limit)
		}
	})
}

// TestQuotaAtMidnight: a restart gives no second head start, and the next day
// begins with nothing used.
func TestQuotaAtMidnight(t *testing.T) {
	store := &memory{}
	q, clock := New(40, store), now
	var d Day
	for q.Next(clock, &d).IsZero() {
		if err := q.Reserve(t.Context(), clock, "d", &d, 1); err != nil {
			t.Fatal(err)
		}
		q.Count(clock, &d, 1)
	}
	q, d = New(40, store), Day{} // a restart
	rows, err := q.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	q.Adopt(clock, &d, rows["d"])
	if at := q.Next(clock, &d); at.IsZero() {
		t.Error("a restart grants another head start")
	}
	clock = clock.Add(24 * time.Hour)
	if at := q.Next(clock, &d); !at.IsZero() {
		t.Errorf("after midnight the next result is allowed only at %v", at)
	}
	if err := q.Reserve(t.Context(), clock, "d", &d, 1); err != nil {
		t.Fatal(err)
	}
	want := Reservation{Day: int(clock.Unix() / secondsPerDay), Reserved: 1}
	if got := store.all["d"].Reservation; got != want {
		t.Errorf("the store holds %+v, want %+v", got, want)
	}
}

// TestQuotaAfterClockWasAhead: the reservation of a day far away, written by this
// process, is replaced once the clock is right.
func TestQuotaAfterClockWasAhead(t *testing.T) {
	store := &memory{}
	q := New(40, store)
	var d Day
	ahead := now.Add(400 * 24 * time.Hour)
	if err := q.Reserve(t.Context(), ahead, "d", &d, 3); err != nil {
		t.Fatal(err)
	}
	q.Count(ahead, &d, 3)
	if err := q.Reserve(t.Context(), now, "d", &d, 1); err != nil {
		t.Fatal(err)
	}
	if got, want := store.all["d"].Day, int(now.Unix()/secondsPerDay); got != want {
		t.Errorf("the reservation is of day %d, want %d", got, want)
	}
	if got := store.all["d"].Reserved; got < 4 {
		t.Errorf("%d results are reserved, want those used and one more", got)
	}
}

func TestQuotaWritesAreFew(t *testing.T) {
	store := &memory{}
	q := New(1440, store)
	var d Day
	for range 1440 {
		if err := q.Reserve(t.Context(), now, "d", &d, 1); err != nil {
			t.Fatal(err)
		}
		q.Count(now, &d, 1)
	}
	if store.writes > parts+1 {
		t.Errorf("%d writes for a day, want %d", store.writes, parts)
	}
	if err := q.Reserve(t.Context(), now, "d", &d, 1); !errors.Is(err, ErrUsedUp) {
		t.Errorf("got %v beyond the quota, want %v", err, ErrUsedUp)
	}
	if at, err := q.Admit(t.Context(), now, "d", &d); !errors.Is(err, ErrUsedUp) || !at.Equal(now.Truncate(24*time.Hour).Add(24*time.Hour)) {
		t.Errorf("admitted at %v with %v, want midnight", at, err)
	}
}

func TestNoLimit(t *testing.T) {
	q := New(0, nil)
	var d Day
	if q.Limited() {
		t.Error("0 is a limit")
	}
	q.Count(now, &d, 5)
	if _, err := q.Admit(t.Context(), now, "d", &d); err != nil {
		t.Error(err)
	}
	if err := errors.Join(q.Reserve(t.Context(), now, "d", &d, 9), q.Return(t.Context(), "d", &d)); err != nil {
		t.Error(err)
	}
	if rows, err := q.Load(t.Context()); rows != nil || err != nil {
		t.Error(rows, err)
	}
	if at := q.Next(now, &d); !at.IsZero() {
		t.Error(at)
	}
}
