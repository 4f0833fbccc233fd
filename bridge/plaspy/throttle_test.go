package plaspy_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"plaspy-bridge/bridge/plaspy"
)

// fleet is an API that limits some devices, or everything, and counts.
type fleet struct {
	mu     sync.Mutex
	served map[string]int
	denied map[string]int
	limit  func(device string) *http.Response // nil: the device is served
}

func (f *fleet) answer(r *http.Request) (*http.Response, error) {
	time.Sleep(50 * time.Millisecond)
	device := strings.Split(r.URL.Path, "/")[3]
	f.mu.Lock()
	defer f.mu.Unlock()
	if res := f.limit(device); res != nil {
		f.denied[device]++
		return res, nil
	}
	f.served[device]++
	return answer(200, `{"success":true,"lastLocation":null}`), nil
}

func (f *fleet) total(counts map[string]int) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range counts {
		n += c
	}
	return n
}

// newFleet returns a client of an API for which limit decides, with a budget of 600 a minute.
func newFleet(t *testing.T, limit func(device string) *http.Response) (*fleet, *plaspy.Client, *plaspy.Budget, *prometheus.Registry) {
	f := &fleet{served: map[string]int{}, denied: map[string]int{}, limit: limit}
	reg := prometheus.NewRegistry()
	b := plaspy.NewBudget(600, slog.New(slog.DiscardHandler), reg)
	c := reply(t, f.answer, func(o *plaspy.Options) { o.Budget = b })
	return f, c, b, reg
}

// pollAll polls devices in turn, as fast as the budget allows, with as many workers as the bridge has by default.
// A device that is held back is left out until it may be asked again.
func pollAll(ctx context.Context, c *plaspy.Client, devices int) {
	jobs := make(chan string)
	var mu sync.Mutex
	rest, failures := map[string]time.Time{}, map[string]int{}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for device := range jobs {
				_, err := c.LastLocation(ctx, device, nil)
				if e, ok := errors.AsType[*plaspy.Error](err); ok && plaspy.Classify(err) == plaspy.Throttled && e.DeviceOnly {
					mu.Lock()
					failures[device]++
					backoff := time.Second << min(failures[device], 6)
					rest[device] = time.Now().Add(max(e.RetryAfter, backoff/2+rand.N(backoff)))
					mu.Unlock()
				} else if err == nil {
					mu.Lock()
					delete(failures, device)
					mu.Unlock()
				}
			}
		})
	}
	for i := 0; ctx.Err() == nil; i++ {
		device := fmt.Sprint("d", i%devices)
		mu.Lock()
		held := time.Now().Before(rest[device])
		mu.Unlock()
		if held {
			time.Sleep(time.Millisecond)
			continue
		}
		select {
		case jobs <- device:
		case <-ctx.Done():
		}
	}
	close(jobs)
	wg.Wait()
}

func TestSomeDevicesOverTheirDay(t *testing.T) {
	const devices = 50
	for _, header := range [][]string{nil, {"Retry-After", "3600"}, {"Retry-After", "86400"}} {
		for _, limited := range []int{1, 5, 20} {
			t.Run(fmt.Sprint(limited, header), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var over atomic.Bool
					f, c, b, reg := newFleet(t, func(device string) *http.Response {
						var n int
						if _, err := fmt.Sscanf(device, "d%d", &n); err != nil {
							t.Error(err)
						}
						if over.Load() && n%(devices/limited) == 0 {
							return answer(429, "", header...)
						}
						return nil
					})
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
					defer cancel()
					var wg sync.WaitGroup
					wg.Go(func() { pollAll(ctx, c, devices) })
					time.Sleep(5 * time.Minute)
					before := f.total(f.served)
					over.Store(true)
					wg.Wait()
					after := f.total(f.served) - before
					denied := f.total(f.denied)
					if sent := after + denied; sent < before*95/100 {
						t.Errorf("%d requests in five minutes, and %d in the next five: the pace is lower", before, sent)
					}
					if header != nil && (denied > limited*3/2 || after < before*95/100) {
						t.Errorf("%d refusals for %d devices; %d answers in five minutes, and %d in the next five", denied, limited, before, after)
					}
					if b.Paused() {
						t.Error("the budget is stopped")
					}
					if err := testutil.GatherAndCompare(reg, strings.NewReader(fmt.Sprintf(`# HELP plaspy_bridge_api_device_throttled_total Answers 429 that concern a single device; plaspy_bridge_api_throttled_total includes them.
# TYPE plaspy_bridge_api_device_throttled_total counter
plaspy_bridge_api_device_throttled_total %d
`, denied)), "plaspy_bridge_api_device_throttled_total"); err != nil {
						t.Error(err)
					}
				})
			})
		}
	}
}

// An API that refuses everything until a moment gets next to nothing before it.
func TestRetryAfterOfAllIsObeyed(t *testing.T) {
	for _, devices := range []int{1, 2, 3, 50} {
		t.Run(fmt.Sprint(devices, " devices"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				f, c, _, _ := newFleet(t, func(string) *http.Response {
					switch at := time.Since(start); {
					case at < time.Minute:
						return nil
					case at < time.Minute+31*time.Second:
						return answer(429, "", "Retry-After", fmt.Sprint(math.Ceil((time.Minute + 31*time.Second - at).Seconds())))
					}
					return nil
				})
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
				defer cancel()
				pollAll(ctx, c, devices)
				if got := f.total(f.denied); got > 8 {
					t.Errorf("%d requests were refused, want at most those in flight and three", got)
				}
				want := 600 + 600*85/60*95/100
				if devices < 3 {
					want = 800 // 16 workers ask for the same device at once here, and all of them back off
				}
				if got := f.total(f.served); got < want {
					t.Errorf("%d answers in all: polling did not go on", got)
				}
			})
		})
	}
}

// A limit on the rate that lets some requests pass lowers the rate of all.
func TestRateLimitBelowTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const permitted = 400 // a minute, of the 600 that the budget allows
		tokens, last := 10.0, time.Now()
		f, c, b, _ := newFleet(t, func(string) *http.Response {
			now := time.Now()
			tokens = min(tokens+permitted*now.Sub(last).Minutes(), 10)
			last = now
			if tokens < 1 {
				return answer(429, "")
			}
			tokens--
			return nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		pollAll(ctx, c, 50)
		served, denied := f.total(f.served), f.total(f.denied)
		if denied > served/10 || served < permitted*10/2 {
			t.Errorf("%d answers and %d refusals in ten minutes", served, denied)
		}
		if got := b.PollRate(); got > 600/1.02-1 {
			t.Errorf("the rate is %v, and was not lowered", got)
		}
	})
}

func TestThrottledTokenOrListConcernsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, call := range map[string]func(context.Context, *plaspy.Client) error{
			"devices": func(ctx context.Context, c *plaspy.Client) error { _, _, err := c.Devices(ctx); return err },
			"groups":  func(ctx context.Context, c *plaspy.Client) error { _, _, err := c.Groups(ctx); return err },
			"query":   func(ctx context.Context, c *plaspy.Client) error { _, err := c.DeviceList(ctx); return err },
		} {
			b := newBudget(600)
			c := reply(t, func(*http.Request) (*http.Response, error) { return answer(429, "", "Retry-After", "30"), nil },
				func(o *plaspy.Options) { o.Budget = b })
			err := call(t.Context(), c)
			if e, ok := errors.AsType[*plaspy.Error](err); !ok || e.DeviceOnly || e.RetryAfter != 30*time.Second || !b.Paused() {
				t.Errorf("%s: got %+v, paused: %v", name, err, b.Paused())
			}
		}
	})
}

// A device's Retry-After applies to all requests for it: polls, posts and queries.
func TestDeviceRestsForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limited := true
		f, c, _, _ := newFleet(t, func(device string) *http.Response {
			if limited && device == "d1" {
				return answer(429, "", "Retry-After", "60")
			}
			return nil
		})
		try := func(device string) *plaspy.Error {
			_, err := c.Alerts(t.Context(), device, []byte(`{}`), plaspy.PostOptions{Before: func() error { return nil }})
			e, _ := errors.AsType[*plaspy.Error](err)
			return e
		}
		if _, err := c.LastLocation(t.Context(), "d1", nil); plaspy.Classify(err) != plaspy.Throttled {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if e := try("d1"); e == nil || !e.DeviceOnly || !e.HasRetryAfter || e.RetryAfter > 50*time.Second || plaspy.Classify(e) != plaspy.Throttled {
			t.Errorf("got %+v", e)
		}
		if e := try("d2"); e != nil {
			t.Errorf("another device: %v", e)
		}
		if got := f.denied["d1"]; got != 1 {
			t.Errorf("%d requests reached the API, want 1", got)
		}
		limited = false
		time.Sleep(time.Minute)
		if e := try("d1"); e != nil {
			t.Errorf("after its end: %v", e)
		}
	})
}

func TestListTakesAQuarterAtMost(t *testing.T) {
	for _, perMinute := range []int{2, 60, 600} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
			defer cancel()
			b, r := newBudget(perMinute), &record{}
			var wg sync.WaitGroup
			use(ctx, &wg, b, r, plaspy.Poll, 20, nil)
			use(ctx, &wg, b, r, plaspy.List, 4, nil)
			wg.Wait()
			lists, all := r.count(plaspy.List), len(r.at)
			if lists > all*26/100+2 || lists < all/5 {
				t.Errorf("%d a minute: %d lists of %d requests, want about a quarter", perMinute, lists, all)
			}
			if got, _ := r.worst(perMinute); got > perMinute {
				t.Errorf("%d a minute: %d in the fullest one", perMinute, got)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		b, r := newBudget(60), &record{}
		var wg sync.WaitGroup
		use(ctx, &wg, b, r, plaspy.List, 4, nil)
		wg.Wait()
		if got := r.count(plaspy.List); got < 580 {
			t.Errorf("%d lists in ten minutes without polls, want about 600", got)
		}
	})
}
