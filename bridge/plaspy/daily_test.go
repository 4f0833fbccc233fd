package plaspy_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"plaspy-bridge/bridge/plaspy"
)

// metered is an API that counts the account's usage of a UTC day by a clock of its own, and refuses more than limit.
type metered struct {
	limit int
	skew  time.Duration // of its clock against the bridge's

	mu          sync.Mutex
	day         int64
	used        int
	peak        int // the most that was used on any day
	polls, post int
	refused     int
	hourly      map[int]int // by hour of the API's clock
}

func (m *metered) answer(r *http.Request) (*http.Response, error) {
	time.Sleep(50 * time.Millisecond)
	now := time.Now().Add(m.skew).UTC()
	m.mu.Lock()
	defer m.mu.Unlock()
	if day := now.Unix() / 86400; day != m.day {
		m.day, m.used, m.hourly = day, 0, map[int]int{}
	}
	date := now.Format(http.TimeFormat)
	if m.used >= m.limit {
		m.refused++
		return answer(429, fmt.Sprintf(`{"success":false,"error":"over","apiUsage":0,"apiDailyUsage":%d}`, m.used), "Date", date), nil
	}
	m.used++
	m.peak = max(m.peak, m.used)
	m.hourly[now.Hour()]++
	if r.Method == http.MethodPost {
		m.post++
	} else {
		m.polls++
	}
	return answer(200, fmt.Sprintf(`{"success":true,"apiUsage":1,"apiDailyUsage":%d,"lastLocation":null}`, m.used), "Date", date), nil
}

func (m *metered) use(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.day, m.used, m.hourly = time.Now().Add(m.skew).Unix()/86400, n, map[int]int{}
}

// replica returns the client of a process with a part of the account's daily usage.
func (m *metered) replica(t *testing.T, usage int, share float64) (*plaspy.Client, *plaspy.Budget, *prometheus.Registry) {
	reg := prometheus.NewRegistry()
	b := plaspy.NewBudget(600, slog.New(slog.DiscardHandler), reg)
	b.LimitDay(usage)
	b.SetShare(share)
	return reply(t, m.answer, func(o *plaspy.Options) { o.Budget = b }), b, reg
}

// TestDailyUsageLasts runs replicas that always have polls to send from noon on, one of which is restarted, into the
// next day. The API's clock is not theirs.
func TestDailyUsageLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 2000
		m := &metered{limit: math.MaxInt, skew: 12 * time.Hour}
		m.use(600)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		run := func(ctx context.Context) {
			c, _, _ := m.replica(t, limit, 0.5)
			for range 2 {
				wg.Go(func() { pollAll(ctx, c, 5) })
			}
		}
		run(ctx)
		first, kill := context.WithCancel(ctx)
		run(first)
		time.Sleep(6 * time.Hour)
		kill()
		run(ctx)
		time.Sleep(6*time.Hour - time.Second)
		m.mu.Lock()
		hourly := m.hourly
		t.Logf("%d used, by hour: %v", m.used, hourly)
		if m.used > limit || m.used < limit-limit/50 {
			t.Errorf("%d used at midnight, want %d", m.used, limit)
		}
		const even = (limit - 600) / 12.
		for hour := 12; hour < 24; hour++ {
			if n := float64(hourly[hour]); math.Abs(n-even) > even/5 {
				t.Errorf("hour %d: %v used, want about %.0f", hour, n, even)
			}
		}
		m.mu.Unlock()
		time.Sleep(6 * time.Hour)
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.used < limit/4-limit/25 || m.used > limit/4+limit/25 {
			t.Errorf("%d used in the next day's first quarter, want %d", m.used, limit/4)
		}
		if m.peak > limit {
			t.Errorf("%d used on a day", m.peak)
		}
		cancel()
		wg.Wait()
	})
}

// TestPostsFirstWhenShort: with a tenth of the usage that polls would take, posts go out at once, until half of the
// rest is used, and polls get only the remainder.
func TestPostsFirstWhenShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &metered{limit: math.MaxInt}
		m.use(1)
		c, b, _ := m.replica(t, 1000, 1)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { pollAll(ctx, c, 5) })
		time.Sleep(time.Minute)
		post := func() {
			if _, err := c.Locations(ctx, "d1", []byte(`{}`), plaspy.PostOptions{}); err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
		for range 5 {
			began := time.Now()
			if post(); time.Since(began) > time.Second {
				t.Errorf("a post took %v", time.Since(began))
			}
			time.Sleep(time.Minute)
		}
		for range 2000 {
			wg.Go(post)
		}
		time.Sleep(10 * time.Minute)
		m.mu.Lock()
		posted, polled := m.post, m.polls
		m.mu.Unlock()
		if posted < 450 || posted > 550 {
			t.Errorf("%d posts of a backlog after 10 minutes, want half of the day's rest", posted)
		}
		time.Sleep(3 * time.Hour)
		if n := b.Waiting(plaspy.Post); n == 0 {
			t.Error("the backlog is gone")
		}
		m.mu.Lock()
		if m.post <= posted || m.polls > polled+20 {
			t.Errorf("in 3 hours of a backlog %d posts and %d polls", m.post-posted, m.polls-polled)
		}
		m.mu.Unlock()
		cancel()
		wg.Wait()
	})
}

// TestDailyLimitIsLearnt: the API refuses everything at less than the setting.
func TestDailyLimitIsLearnt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &metered{limit: 500}
		m.use(400)
		c, b, reg := m.replica(t, 100_000, 1)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { pollAll(ctx, c, 20) })
		time.Sleep(30 * time.Minute)
		if s := b.Day(); !s.Learnt || s.Limit != 500 || !s.UsedUp || !b.Paused() {
			t.Errorf("after half an hour of refusals %+v", s)
		}
		want := "# HELP plaspy_bridge_api_daily_usage_limit The limit of the account's usage today: PLASPY_DAILY_USAGE, or less if " +
			"the API refuses everything before; 0 means no limit.\n# TYPE plaspy_bridge_api_daily_usage_limit gauge\nplaspy_bridge_api_daily_usage_limit 500\n"
		if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "plaspy_bridge_api_daily_usage_limit"); err != nil {
			t.Error(err)
		}
		m.mu.Lock()
		refused := m.refused
		m.mu.Unlock()
		time.Sleep(10 * time.Hour)
		m.mu.Lock()
		if n := m.refused - refused; n < 30 || n > 50 {
			t.Errorf("%d requests in ten hours, want one each quarter of an hour", n)
		}
		m.limit = math.MaxInt // the account was given more
		m.mu.Unlock()
		time.Sleep(time.Hour)
		if s := b.Day(); s.Learnt || s.Limit != 100_000 || s.UsedUp {
			t.Errorf("after the limit is gone %+v", s)
		}
		cancel()
		wg.Wait()
	})
}

// TestDailyUsageUsedUp: at the limit nothing is sent until the API's midnight, and a query is not kept waiting.
func TestDailyUsageUsedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &metered{limit: math.MaxInt, skew: 20 * time.Hour}
		m.use(300)
		c, b, _ := m.replica(t, 300, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Hour)
		defer cancel()
		if err := poll(ctx, c); err != nil { // the first one has to find out
			t.Fatal(err)
		}
		if s := b.Day(); !s.UsedUp || b.PollRate() != 0 {
			t.Errorf("got %+v and %v polls a minute", s, b.PollRate())
		}
		short, stop := context.WithTimeout(ctx, time.Minute)
		defer stop()
		if _, err := b.Wait(short, plaspy.Query); !errors.Is(err, plaspy.ErrNoBudget) {
			t.Errorf("a query got %v", err)
		}
		began := time.Now()
		if err := poll(ctx, c); err != nil {
			t.Error(err)
		}
		if waited := time.Since(began); waited < 4*time.Hour-2*time.Second || waited > 4*time.Hour+time.Minute {
			t.Errorf("the next poll waited %v, want until midnight", waited)
		}
		if m.used != 1 {
			t.Errorf("%d used on the new day", m.used)
		}
	})
}

// TestUnusedPermitsCostNothing: permits that are given back, or too old to be used, leave the day's rest as it was.
func TestUnusedPermitsCostNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &metered{limit: math.MaxInt}
		m.use(1)
		c, b, _ := m.replica(t, 20_000, 1)
		if err := poll(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		before := b.Day().Rate
		for i := range 100 {
			p, err := b.Wait(t.Context(), plaspy.Post)
			if err != nil {
				t.Fatal(err)
			}
			if i%2 == 0 {
				p.Return()
				continue
			}
			time.Sleep(time.Second)
			ctx, cancel := context.WithCancel(plaspy.WithPermit(t.Context(), p))
			cancel()
			if err := poll(ctx, c); err == nil {
				t.Fatal("a request with a void permit was sent")
			}
			p.Return()
		}
		if after := b.Day().Rate; math.Abs(after-before) > before/200 {
			t.Errorf("the rest suffices for %v requests a minute, before %v", after, before)
		}
	})
}

// TestNoDailyLimit: with 0 nothing is held back and the budget has its fast path.
func TestNoDailyLimit(t *testing.T) {
	b := plaspy.NewBudget(0, slog.New(slog.DiscardHandler), nil)
	b.LimitDay(0)
	for range 10_000 {
		if p, err := b.Wait(t.Context(), plaspy.Poll); p != nil || err != nil {
			t.Fatalf("got %v, %v", p, err)
		}
	}
	if s := b.Day(); s.Short || s.UsedUp || s.Limit != 0 || !math.IsInf(b.PollRate(), 1) {
		t.Errorf("got %+v and %v polls a minute", s, b.PollRate())
	}
}

// TestDailyLimitAlone paces without PLASPY_RATE_LIMIT, too.
func TestDailyLimitAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := plaspy.NewBudget(0, slog.New(slog.DiscardHandler), nil)
		b.LimitDay(1440)
		n := 0
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
		defer cancel()
		for ; ; n++ {
			if _, err := b.Wait(ctx, plaspy.Poll); err != nil {
				break
			}
		}
		if n < 110 || n > 140 {
			t.Errorf("%d polls in two hours, want 120 and a few", n)
		}
	})
}
