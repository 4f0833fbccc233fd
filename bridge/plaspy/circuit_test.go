package plaspy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
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

var (
	down  = &plaspy.Error{Endpoint: "locations", Status: 502}
	wrong = &plaspy.Error{Endpoint: "locations", Status: 400}
)

func newCircuit(log *slog.Logger, reg prometheus.Registerer) *plaspy.Circuit {
	return plaspy.NewCircuit(plaspy.CircuitOptions{Name: "posts", Initial: time.Second, Max: time.Minute, Log: log, Registerer: reg})
}

func TestCircuitOpens(t *testing.T) {
	for _, tc := range []struct {
		name    string
		devices int
		tries   []string // device, or ! for another answer, or ~ for a cancelled try
		want    bool
	}{
		{"five tries, three devices", 0, []string{"a", "b", "c", "a", "b"}, true},
		{"four tries", 0, []string{"a", "b", "c", "d"}, false},
		{"two devices of many", 10, []string{"a", "b", "a", "b", "a", "b"}, false},
		{"two devices of two", 2, []string{"a", "b", "a", "b", "a"}, true},
		{"the only device", 1, []string{"a", "a", "a", "a", "a"}, true},
		{"interrupted", 0, []string{"a", "b", "c", "!", "a", "b"}, false},
		{"cancelled tries do not count", 0, []string{"a", "b", "c", "~", "~", "d"}, false},
		{"nor interrupt", 0, []string{"a", "b", "c", "~", "a", "b"}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCircuit(slog.New(slog.DiscardHandler), nil)
			c.SetDevices(tc.devices)
			for _, device := range tc.tries {
				switch device {
				case "!":
					c.Report("x", wrong)
				case "~":
					c.Report("x", fmt.Errorf("post: %w", context.Canceled))
					c.Report("x", &plaspy.IDError{})
					c.Report("x", plaspy.ErrNoBudget)
				default:
					c.Report(device, down)
				}
			}
			if got := c.State().Open; got != tc.want {
				t.Errorf("got open=%v, want %v", got, tc.want)
			}
		})
	}
}

func TestCircuitProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		reg := prometheus.NewRegistry()
		c := newCircuit(slog.New(slog.NewTextHandler(&out, nil)), reg)
		if err := c.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i := range 20 {
			c.Report(fmt.Sprint(i), down)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
		defer cancel()
		var mu sync.Mutex
		last := time.Now()
		var gaps []time.Duration
		var wg sync.WaitGroup
		for i := range 50 { // many workers, one probe at a time
			wg.Go(func() {
				for c.Wait(ctx) == nil && ctx.Err() == nil {
					mu.Lock()
					gaps = append(gaps, time.Since(last))
					last = time.Now()
					mu.Unlock()
					c.Report(fmt.Sprint(i), down)
				}
			})
		}
		wg.Wait()
		want := time.Second
		for i, gap := range gaps {
			if gap < want || gap > want*11/10+1 {
				t.Errorf("probe %d came after %v, want %v", i, gap, want)
			}
			want = min(2*want, time.Minute)
		}
		if len(gaps) < 30 {
			t.Errorf("got %d probes in half an hour", len(gaps))
		}
		if got := testutil.ToFloat64(gauge(t, reg)); got != 1 {
			t.Errorf("got gauge %v", got)
		}
		freed := make(chan error)
		for range 10 {
			go func() { freed <- c.Wait(t.Context()) }()
		}
		synctest.Wait()
		start := time.Now()
		c.Report("a", nil)
		for range 10 {
			if err := <-freed; err != nil || time.Since(start) != 0 {
				t.Errorf("freed after %v: %v", time.Since(start), err)
			}
		}
		if c.State() != (plaspy.CircuitState{}) || testutil.ToFloat64(gauge(t, reg)) != 0 {
			t.Errorf("got %+v after an answer", c.State())
		}
		if a, b := strings.Count(out.String(), "API is down"), strings.Count(out.String(), "API answers again"); a != 1 || b != 1 {
			t.Errorf("got %d and %d lines, want 1 and 1", a, b)
		}
	})
}

func gauge(t *testing.T, reg prometheus.Registerer) prometheus.Collector {
	t.Helper()
	again := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "plaspy_bridge_api_circuit_open",
		Help: "1 while the API is taken to be down and only probes are sent, by direction.",
	}, []string{"direction"})
	known, ok := errors.AsType[prometheus.AlreadyRegisteredError](reg.Register(again))
	if !ok {
		t.Fatal("the gauge is not registered")
	}
	return known.ExistingCollector
}

func TestCircuitClosesOnAnyAnswer(t *testing.T) {
	for _, err := range []error{nil, wrong, &plaspy.Error{Status: 401}, &plaspy.Error{Status: 429}, &plaspy.Error{Status: http.StatusNotFound}} {
		c := newCircuit(slog.New(slog.DiscardHandler), nil)
		for i := range 5 {
			c.Report(fmt.Sprint(i), down)
		}
		if ok, at := c.Allow(time.Now()); ok || !at.After(time.Now()) {
			t.Error("a try is allowed as soon as it opened")
		}
		c.Report("z", err)
		if ok, _ := c.Allow(time.Now()); !ok {
			t.Errorf("%v does not close it", err)
		}
	}
}

// TestAFlappingAPIDoesNotFloodTheLog: an API that fails and answers in turn is
// told of now and then, and an outage that lasts always.
func TestAFlappingAPIDoesNotFloodTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		c := plaspy.NewCircuit(plaspy.CircuitOptions{Name: "polls", Log: slog.New(slog.NewTextHandler(&log, nil))})
		fail := func() {
			for i := range 5 {
				c.Report(fmt.Sprint(i), &plaspy.Error{Status: 503})
			}
		}
		lines := func(what string) int { return strings.Count(log.String(), what) }
		for range 300 { // half a minute
			fail()
			time.Sleep(50 * time.Millisecond)
			c.Report("0", nil)
			time.Sleep(50 * time.Millisecond)
		}
		if down, up := lines("API is down"), lines("API answers again"); down > 4 || up != down {
			t.Errorf("%d times down and %d times back in the log of half a minute, want a few and as many", down, up)
		}
		before := lines("API is down")
		fail()
		time.Sleep(time.Minute)
		fail()
		c.Report("0", nil)
		if down, up := lines("API is down"), lines("API answers again"); down != before+1 || up != down {
			t.Errorf("an outage that lasted is told of %d times, its end %d times, want once each", down-before, up-before)
		}
	})
}
