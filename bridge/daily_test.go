package bridge

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/ops"
	"plaspy-bridge/bridge/plaspy/daily"
	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/bridge/sim/fleet"
	"plaspy-bridge/publisher/natstest"
)

// TestDailyResultsAcrossRestarts counts at the API the results that a bridge uses of one
// device's day over three starts: one head start, and no more.
func TestDailyResultsAcrossRestarts(t *testing.T) {
	t.Parallel()
	const head = 12
	today := func() string { return time.Now().UTC().Format(time.DateOnly) }
	day := today()
	n := resultsOfThreeLives(t, 4*head)
	if now := today(); now != day { // each day has its own head start
		n = resultsOfThreeLives(t, 4*head)
	}
	if n < head || n > head+1 {
		t.Errorf("%d results used by three lives, want the one head start of %d", n, head)
	}
}

// resultsOfThreeLives returns the number of polls of three runs of a bridge that has a
// new store and a daily limit of results.
func resultsOfThreeLives(t *testing.T, limit int) (polls int64) {
	t.Helper()
	api, cfg := fleetOf(t, sim.Options{Devices: 1, Seed: 1, Profile: fleet.EverySecond})
	cfg.DailyResults = limit
	cfg.PollInterval = 20 * time.Millisecond
	id := api.IDs()[0]
	for life := range 3 {
		b, stop := launch(t, cfg)
		readyz(t, b, "ready", ready)
		deadline := time.NewTimer(time.Minute)
		for told := false; !told; {
			select {
			case <-deadline.C:
				t.Fatalf("life %d: why does not report the quota after %v", life, api.Counts().Answers["lastLocation"])
			case <-time.After(10 * time.Millisecond):
			}
			var why struct{ Reason string }
			if answer, ok := b.polling.pool.Why(id); ok && json.Unmarshal(answer, &why) == nil {
				told = why.Reason == "quota"
			}
		}
		deadline.Stop()
		stop()
	}
	for _, count := range api.Counts().Answers["lastLocation"] {
		polls += count
	}
	return polls
}

// TestLivezOfARun: a bridge that works shows every kind of progress, with ages.
func TestLivezOfARun(t *testing.T) {
	t.Parallel()
	_, cfg := fleetOf(t, sim.Options{Devices: 3, Seed: 1, Profile: fleet.EverySecond})
	b, _ := launch(t, cfg)
	readyz(t, b, "ready", ready)
	follow(t, b, "plaspy.location.*", 5)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://%s/livez", b.HTTPAddr()), nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var live ops.Liveness
	if err := json.Unmarshal(body, &live); err != nil {
		t.Fatal(err)
	}
	limit := livenessAge(cfg).Seconds()
	for _, name := range []string{"watch", "dispatcher", "polls", "acknowledgements", "posts", "inbound"} {
		h, there := live.Heartbeats[name]
		if !there || !h.OK || h.MaxAge < limit || h.Age > limit || h.Idle && h.Waits == "" {
			t.Errorf("%s: %+v in %s", name, h, body)
		}
	}
	if !live.Live || len(live.Heartbeats) != 6 {
		t.Errorf("%s", body)
	}
}

// TestUsageRunsShort: a pace below PLASPY_RATE_LIMIT alone is no shortage; one below the devices' need is.
func TestUsageRunsShort(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		day   daily.State
		need  float64
		state bool // was short before
		want  bool
	}{
		{"more than enough", daily.State{Limit: 1000, Rate: 600}, 100, false, false},
		{"below the limit of the rate, above the need", daily.State{Limit: 1000, Rate: 140, Short: true}, 100, false, false},
		{"below both", daily.State{Limit: 1000, Rate: 90, Short: true}, 100, false, true},
		{"above the rate that is permitted, which is below the need", daily.State{Limit: 1000, Rate: 90}, 100, false, false},
		{"a little above the need, short before", daily.State{Limit: 1000, Rate: 103, Short: true}, 100, true, true},
		{"well above the need, short before", daily.State{Limit: 1000, Rate: 106, Short: true}, 100, true, false},
		{"used up", daily.State{Limit: 1000, UsedUp: true, Short: true}, 0, false, true},
		{"learnt and used up", daily.State{Limit: 1000, Learnt: true, UsedUp: true, Short: true}, 100, false, true},
	} {
		u := usage{short: tt.state}
		if got := u.state(tt.day, tt.need); !got.OK || got.Degraded != tt.want {
			t.Errorf("%s: got %+v, want degraded %t", tt.name, got, tt.want)
		}
	}
}

var midnight = flag.Bool("midnight", false, "run TestDailyUsageWithReplicas, which takes eight minutes")

// TestDailyUsageWithReplicas: the API refuses everything at 300, far below the setting. Two replicas learn that, one
// of them is replaced by a new process, which learns it too, and all continue after midnight by the API's clock.
func TestDailyUsageWithReplicas(t *testing.T) {
	if !*midnight {
		t.Skip("waits eight minutes for the API's midnight; run with -midnight")
	}
	t.Parallel()
	const limit, untilMidnight = 300, 7 * time.Minute
	now := time.Now().UTC()
	midnight := time.Date(now.Year(), now.Month(), now.Day()+1, 0, 0, 0, 0, time.UTC)
	api, cfg := fleetOf(t, sim.Options{
		Devices: 10, Seed: 1, Profile: fleet.EverySecond, DailyUsage: limit, Skew: midnight.Sub(now) - untilMidnight, TokenLife: time.Hour,
	})
	srv := natstest.Start(t, natstest.Listen)
	cfg.NATSURL, cfg.RateLimit, cfg.HTTPAddr, cfg.PollInterval, cfg.DailyUsage = config.Servers(srv.ClientURL()), 600, "", time.Second, 100_000
	answers := func(code int) (n int64) {
		for endpoint, codes := range api.Counts().Answers {
			if endpoint != "token" {
				n += codes[code]
			}
		}
		return n
	}
	learnt := func(b *Bridge) func() bool {
		return func() bool {
			day := b.api.budget.Day()
			return day.Learnt && day.UsedUp && day.Limit == limit
		}
	}
	wait := func(what string, ok func() bool) {
		t.Helper()
		for begin := time.Now(); !ok(); {
			if time.Since(begin) > 2*untilMidnight {
				t.Fatalf("timed out waiting for %s; %v", what, api.Counts().Answers)
			}
			select {
			case <-time.After(100 * time.Millisecond):
			case <-t.Context().Done():
				t.Fatal(context.Cause(t.Context()))
			}
		}
		t.Logf("after %v: %s; %d served, %d refused", time.Since(now).Round(time.Second), what, answers(http.StatusOK), answers(http.StatusTooManyRequests))
	}
	a, end := replicaOf(t, cfg, "a")
	b, _ := replicaOf(t, cfg, "b")
	wait("the day's usage is used up", func() bool { return answers(http.StatusOK) == limit })
	wait("a knows the limit", learnt(a))
	wait("b knows the limit", learnt(b))
	refused := answers(http.StatusTooManyRequests)
	<-end()
	c, _ := replicaOf(t, cfg, "c")
	wait("the new process knows the limit", learnt(c))
	if more := answers(http.StatusTooManyRequests) - refused; more > 60 {
		t.Errorf("%d more requests were refused", more)
	}
	if n := answers(http.StatusOK); n > limit {
		t.Errorf("%d requests were served, want %d at most", n, limit)
	}
	wait("polls go on after midnight", func() bool { return answers(http.StatusOK) > limit+50 })
	for _, of := range []*Bridge{b, c} {
		if day := of.api.budget.Day(); day.Learnt || day.Limit != cfg.DailyUsage {
			t.Errorf("the new day begins with %+v", day)
		}
	}
}

// TestDailyUsage: at noon, by the API's clock, an account with little usage left has its first polls and its posts at
// once, and then few polls until midnight. A usage that is used up leaves the bridge ready.
func TestDailyUsage(t *testing.T) {
	t.Parallel()
	now := time.Now().UTC()
	noon := time.Date(now.Year(), now.Month(), now.Day(), 12, 0, 0, 0, time.UTC)
	used := func(api *sim.Server) (n int64) {
		for endpoint, codes := range api.Counts().Answers {
			if endpoint != "token" {
				n += codes[http.StatusOK]
			}
		}
		return n
	}
	for _, tt := range []struct {
		name        string
		usage       int
		reason      string
		least, most int64
	}{
		{"short", 500, `does not suffice for a poll of every device per interval until midnight UTC`, 3, 10},
		{"used up", 1, `PLASPY_DAILY_USAGE of 1 is used up`, 1, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			api, cfg := fleetOf(t, sim.Options{Devices: 3, Seed: 1, Profile: fleet.EverySecond, DailyUsage: tt.usage, Skew: noon.Sub(now)})
			cfg.DailyUsage, cfg.RateLimit = tt.usage, 6000
			b, _ := launch(t, cfg)
			readyz(t, b, "reports the usage", func(status int, body string) bool {
				return status == http.StatusOK && strings.Contains(body, tt.reason)
			})
			if tt.name == "short" {
				if _, err := natstest.JetStream(t, b.broker.conn.Conn).Publish(t.Context(), "plaspy.in.location.device0001", []byte(`{"dateTime":"2026-01-02T03:04:05Z","latitude":1,"longitude":2}`)); err != nil {
					t.Fatal(err)
				}
				natstest.Eventually(t, "a post and a poll", func() bool {
					counts := api.Counts()
					return counts.Accepted["device0001"] > 0 && counts.Answers["lastLocation"][http.StatusOK] > 0
				})
			}
			if n := used(api); n < tt.least || n > tt.most {
				t.Errorf("%d requests were answered, want %d to %d: %v", n, tt.least, tt.most, api.Counts().Answers)
			}
			if n := api.Counts().Answers["lastLocation"][http.StatusTooManyRequests]; n > 0 {
				t.Errorf("%d polls beyond the daily usage", n)
			}
		})
	}
}
