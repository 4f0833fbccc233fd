//go:build linux

package machine_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"plaspy-bridge/bridge/harness"
)

// TestClock sets clocks an hour ahead or behind and back again, while the bridge polls and
// posts. It kills the bridge while the clocks are wrong.
func TestClock(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name           string
		bridge, broker bool // the program with the wrong clock
		ahead          time.Duration
	}{
		{"bridge ahead", true, false, time.Hour},
		{"bridge behind", true, false, -time.Hour},
		{"broker ahead", false, true, time.Hour},
		{"broker behind", false, true, -time.Hour},
		{"both ahead", true, true, time.Hour},
		{"both behind", true, true, -time.Hour},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			const limit = 60 // requests a second
			r := newRig(t, harness.Options{Devices: 20, Env: []string{fmt.Sprint("PLASPY_RATE_LIMIT=", limit*60), "BRIDGE_INBOUND_MAX_AGE=24h"}}, false)
			r.every = 500 * time.Millisecond
			ctx := harness.Within(t, 5*time.Minute)
			r.start(ctx, t)
			w := r.watch(t)
			ok(t, r.Polled(ctx, time.Now()))
			from := time.Now()
			set := func(ahead time.Duration) {
				if test.bridge {
					r.bridge.Clock(ahead)
				}
				if test.broker {
					r.broker.Clock(ahead)
				}
				at := time.Now()
				ok(t, r.Polled(ctx, at))
				if took := time.Since(at); took > harness.AtMost(patience) {
					t.Errorf("it took %v after the clock was set to %v until every device was polled", took, ahead)
				}
				wait(ctx, t, 2500*time.Millisecond)
			}
			set(test.ahead)
			if skew := r.skew(ctx, t); test.bridge && (skew-test.ahead).Abs() > time.Minute {
				t.Errorf("the bridge's clock is %v ahead, want %v: the fault was not there", skew, test.ahead)
			}
			if skew := r.brokerSkew(ctx, t); test.broker && (skew-test.ahead).Abs() > time.Minute {
				t.Errorf("the broker's clock is %v ahead, want %v: the fault was not there", skew, test.ahead)
			}
			ok(t, r.Bridge.Kill())
			ok(t, r.Bridge.Start(ctx))
			at := time.Now()
			ok(t, r.Bridge.Ready(ctx))
			ok(t, r.Polled(ctx, at))
			if took := time.Since(at); took > harness.AtMost(15*time.Second) {
				t.Errorf("it took %v after the kill until every device was polled", took)
			}
			set(0)
			const early = limit * 60 / 10 // ahead of the even pace
			if n := r.most(from, time.Now(), 5*time.Second); n > 5*limit+early {
				t.Errorf("%d polls within 5s, more than the budget has", n)
			}
			r.truthful(t, w, from)
			r.settled(ctx, t, "clock of "+test.name, 0)
		})
	}
}

// skew returns how far the bridge's clock is ahead of the true one.
func (r *rig) skew(ctx context.Context, t *testing.T) time.Duration {
	t.Helper()
	var addr string
	for _, v := range r.Bridge.Env() {
		if a, is := strings.CutPrefix(v, "BRIDGE_HTTP_ADDR="); is {
			addr = a
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/livez", nil)
	ok(t, err)
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	ok(t, err)
	defer resp.Body.Close()
	at, err := http.ParseTime(resp.Header.Get("Date"))
	ok(t, err)
	return time.Until(at)
}

// brokerSkew returns how far the broker's clock is ahead of the true one.
func (r *rig) brokerSkew(ctx context.Context, t *testing.T) time.Duration {
	t.Helper()
	st, err := r.Broker.JetStream().Stream(ctx, subjects.Events())
	ok(t, err)
	return time.Until(st.CachedInfo().TimeStamp)
}
