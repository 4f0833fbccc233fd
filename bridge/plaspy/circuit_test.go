package plaspy_test

import (
	"bytes"
	"cmp"
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
		tries   []string // device, or ! for another answer (to x or the device behind it), or ~ for a cancelled try
		want    bool
	}{
		{"five tries, three devices", 0, []string{"a", "b", "c", "a", "b"}, true},
		{"four tries", 0, []string{"a", "b", "c", "d"}, false},
		{"two devices of many", 10, []string{"a", "b", "a", "b", "a", "b"}, false},
		{"two devices, and no others were tried", 0, []string{"a", "b", "a", "b", "a"}, true},
		{"one device, and no others were tried", 0, []string{"a", "a", "a", "a", "a"}, true},
		{"two devices of two", 2, []string{"a", "b", "a", "b", "a"}, true},
		{"the only device", 1, []string{"a", "a", "a", "a", "a"}, true},
		{"interrupted", 0, []string{"a", "b", "c", "!", "a", "b"}, false},
		{"devices that fail by themselves", 0, []string{"a", "b", "c", "d", "!", "a", "b", "c", "d", "!", "a", "b", "c", "d", "e"}, false},
		{"until nothing is answered any more", 0, []string{"a", "b", "c", "d", "!", "a", "b", "c", "d", "a", "b", "c", "d", "a"}, true},
		{"devices that were answered since they failed", 0, []string{"a", "b", "!a", "!b", "a", "b", "c", "d", "e"}, true},
		{"cancelled tries do not count", 0, []string{"a", "b", "c", "~", "~", "d"}, false},
		{"nor interrupt", 0, []string{"a", "b", "c", "~", "a", "b"}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCircuit(slog.New(slog.DiscardHandler), nil)
			c.SetDevices(tc.devices)
			for _, device := range tc.tries {
				switch device {
				case "!", "!a", "!b":
					c.Report(cmp.Or(device[1:], "x"), wrong)
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

// TestCircuitAfterAHandover: a replica that has one device left of several notices an
// outage of the API by that one. Posts go to the other devices too.
func TestCircuitAfterAHandover(t *testing.T) {
	for _, counted := range []bool{true, false} {
		c := plaspy.NewCircuit(plaspy.CircuitOptions{Log: slog.New(slog.DiscardHandler), Counted: counted})
		c.SetDevices(4)
		for _, device := range []string{"a", "b", "c", "d"} {
			c.Report(device, nil)
		}
		c.SetDevices(1)
		for range 5 {
			c.Report("a", down)
		}
		if open := c.State().Open; open != counted {
			t.Errorf("counted %t: open=%t", counted, open)
		}
	}
}

func TestCircuitProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		reg := prometheus.NewRegistry()
		c := newCircuit(slog.New(slog.NewTextHandler(&out, nil)), reg)
		if ok, _ := c.Allow(time.Now()); !ok {
			t.Fatal("a try is not allowed while it is closed")
		}
		for i := range 20 {
			c.Report(fmt.Sprint(i), down)
		}
		start := time.Now()
		last := start
		var mu sync.Mutex
		var gaps []time.Duration
		var wg sync.WaitGroup
		for i := range 50 { // many workers, one probe at a time
			wg.Go(func() {
				for time.Since(start) < 30*time.Minute {
					ok, at := c.Allow(time.Now())
					if !ok {
						time.Sleep(time.Until(at))
						continue
					}
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
		c.Report("a", nil)
		if c.State() != (plaspy.CircuitState{}) || testutil.ToFloat64(gauge(t, reg)) != 0 {
			t.Errorf("got %+v after an answer", c.State())
		}
		if a, b := strings.Count(out.String(), "API is down"), strings.Count(out.String(), "API answers again"); a != 1 || b != 1 {
			t.Errorf("got %d and %d lines, want 1 and 1", a, b)
		}
	})
}

// TestProbesWhileOthersAreAnswered: as long as the API answers other requests, each device that was not tried is
// probed at the first pace, so that a working one among many broken ones is found soon.
func TestProbesWhileOthersAreAnswered(t *testing.T) {
	for _, tc := range []struct {
		name     string
		answered bool
		within   time.Duration // of 40 probes to devices that have not failed before
	}{
		{"others are answered", true, 45 * time.Second},
		{"nothing is answered", false, 50 * time.Minute},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				others := uint64(7)
				c := plaspy.NewCircuit(plaspy.CircuitOptions{
					Name: "posts", Initial: time.Second, Max: time.Minute, Log: slog.New(slog.DiscardHandler),
					Elsewhere: func() uint64 { return others },
				})
				for i := range 16 {
					c.Report(fmt.Sprint(i), down)
				}
				if tc.answered {
					others++
				}
				probe := func(device int) time.Duration {
					start := time.Now()
					for {
						ok, at := c.Allow(time.Now())
						if ok {
							break
						}
						time.Sleep(time.Until(at))
					}
					c.Report(fmt.Sprint(device), down)
					return time.Since(start)
				}
				var took time.Duration
				for i := range 40 {
					gap := probe(16 + i)
					if took += gap; gap < time.Second {
						t.Errorf("probe %d came after %v", i, gap)
					}
				}
				if tc.answered != (took <= 45*time.Second) || took > tc.within {
					t.Errorf("40 probes took %v", took)
				}
				for i := range 10 { // all have failed: the pace falls
					took = probe(16 + i)
				}
				if took < time.Minute {
					t.Errorf("a device that has failed is probed after %v", took)
				}
			})
		})
	}
}

func gauge(t *testing.T, reg prometheus.Registerer) prometheus.Collector {
	t.Helper()
	again := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "plaspy_bridge_api_circuit_open",
		Help: "1 while the API is considered down and only probes are sent, by direction: polls, posts.",
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
			t.Error("a try is allowed directly after it opened")
		}
		c.Report("z", err)
		if ok, _ := c.Allow(time.Now()); !ok {
			t.Errorf("%v does not close it", err)
		}
	}
}

// TestAFlappingAPIDoesNotFloodTheLog: an API that fails and answers in turn is
// logged now and then, and an outage that lasts always.
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
			t.Errorf("a long outage is logged %d times, its end %d times, want once each", down-before, up-before)
		}
	})
}

// A maintenance page in front of the API is an outage, one in front of some requests is not.
func TestCircuitAndForeignAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		page := &plaspy.Error{Endpoint: "locations", Status: 302, Foreign: true}
		var answered time.Time
		c := plaspy.NewCircuit(plaspy.CircuitOptions{Name: "posts", Log: slog.New(slog.DiscardHandler), Answered: func() time.Time { return answered }})
		fail := func(n int) {
			for i := range n {
				time.Sleep(time.Millisecond)
				c.Report(fmt.Sprint(i%3), page)
			}
		}
		answered = time.Now()
		if fail(4); c.State().Open {
			t.Error("open after four tries")
		}
		if fail(1); !c.State().Open {
			t.Error("closed although the API has answered nothing since the first of five")
		}
		if ok, _ := c.Allow(time.Now()); ok {
			t.Error("a try is allowed directly after it opened")
		}
		time.Sleep(time.Minute)
		answered = time.Now() // a poll
		if ok, _ := c.Allow(time.Now()); !ok || c.State().Open {
			t.Error("still open although the API answers elsewhere")
		}
		for range 100 {
			fail(4)
			answered = time.Now()
		}
		if c.State().Open {
			t.Error("open although the API answers elsewhere all the time")
		}
		// A gateway that answers 502 now and then with a page, and 302 otherwise, hides the API as well.
		for i := range 5 {
			time.Sleep(time.Millisecond)
			c.Report(fmt.Sprint(i), []error{page, down}[i%2])
		}
		if !c.State().Open {
			t.Error("closed after a mixture of five failures")
		}
	})
}

// A log that blocks must not delay tries.
func TestCircuitLogsWithoutItsMutex(t *testing.T) {
	stuck, goOn := make(chan struct{}), make(chan struct{})
	c := newCircuit(slog.New(slog.NewTextHandler(writer(func(p []byte) (int, error) {
		close(stuck)
		<-goOn
		return len(p), nil
	}), nil)), nil)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for i := range 5 {
			c.Report(fmt.Sprint(i), down)
		}
	}()
	<-stuck
	if ok, _ := c.Allow(time.Now()); ok || !c.State().Open {
		t.Error("not open")
	}
	close(goOn)
	<-ended
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }
