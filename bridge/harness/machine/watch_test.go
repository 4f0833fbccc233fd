//go:build linux

package machine_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"plaspy-bridge/bridge/harness"
)

// look is one answer of /readyz.
type look struct {
	at     time.Time
	health harness.Health
	err    error
}

// watch asks the bridge for its health again and again.
type watch struct {
	stop context.CancelFunc
	done sync.WaitGroup

	mu    sync.Mutex
	looks []look
}

func (r *rig) watch(t *testing.T) *watch {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &watch{stop: cancel}
	w.done.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			h, err := r.Bridge.Health(ctx)
			w.mu.Lock()
			w.looks = append(w.looks, look{time.Now(), h, err})
			w.mu.Unlock()
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	t.Cleanup(w.end)
	return w
}

func (w *watch) end() { w.stop(); w.done.Wait() }

// from returns the answers in a span of time.
func (w *watch) from(from, to time.Time) []look {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(w.looks), func(l look) bool { return l.at.Before(from) || l.at.After(to) })
}

// story returns the changes of the answers.
func (w *watch) story(from, to time.Time) string {
	var b strings.Builder
	last := ""
	for _, l := range w.from(from, to) {
		said := "ready"
		switch {
		case l.err != nil:
			said = "no answer: " + l.err.Error()
		case !l.health.Ready:
			said = "not ready"
		}
		if l.err == nil {
			said = fmt.Sprintf("%s %v", said, l.health.Reasons)
		}
		if said != last {
			fmt.Fprintf(&b, "%6.2f %s\n", l.at.Sub(from).Seconds(), said)
		}
		last = said
	}
	return b.String()
}

// ready returns the longest time in which the bridge reported without a break that it was
// ready. Between two reports at most half a second counts: in a longer time the bridge or
// this process did not get the CPU.
func (w *watch) ready(from, to time.Time) time.Duration {
	var longest, sum time.Duration
	var last time.Time // of the previous report, if that was ready
	for _, l := range w.from(from, to) {
		if l.err != nil || !l.health.Ready {
			sum, last = 0, time.Time{}
			continue
		}
		if !last.IsZero() {
			sum += min(l.at.Sub(last), 500*time.Millisecond)
		}
		last = l.at
		longest = max(longest, sum)
	}
	return longest
}

// recovers fails the test if the bridge does not recover soon after the end of a fault.
func (r *rig) recovers(ctx context.Context, t *testing.T) {
	t.Helper()
	mended := time.Now()
	ok(t, r.Bridge.Ready(ctx))
	ok(t, r.Polled(ctx, mended))
	if took := time.Since(mended); took > recovery {
		t.Errorf("it took %v until the bridge was at work again", took)
	}
}

// recovery is how long that may take on a busy machine. A lost lease takes 5 s, a server
// that returns another 5 s, and the change to another server 10 s.
const recovery = 40 * time.Second

// truthful fails the test if a device was not polled while the bridge reported that it was
// ready.
func (r *rig) truthful(t *testing.T, w *watch, from time.Time) {
	t.Helper()
	to := time.Now()
	for id, list := range r.polls(from, to) {
		last := from
		for _, at := range append(list, to) {
			if at.Sub(last) > r.patience {
				if ready := w.ready(last, at); ready > r.patience {
					t.Errorf("%s was not polled for %v, from %v on, while the bridge reported for %v that it was ready", id, at.Sub(last), last.Sub(from), ready)
				}
			}
			last = at
		}
	}
	t.Logf("the bridge's reports:\n%s", w.story(from, to))
}

// patience is how long a poll, with the storing of its result, may take before the bridge
// is not ready: the wait for an acknowledgement, and a second.
const patience = 6 * time.Second

// inCluster is the same for a device whose event was in flight through a lost server of a
// cluster. The bridge waits for the acknowledgement and retries this event, while it
// publishes those of the other devices.
const inCluster = 4 * patience

// polls returns the times of the answers with a location by device.
func (r *rig) polls(from, to time.Time) map[string][]time.Time {
	all := map[string][]time.Time{}
	for _, id := range r.API.Sim.IDs() {
		for _, s := range r.API.Sim.Shown(id) {
			if !s.At.Before(from) && !s.At.After(to) {
				all[id] = append(all[id], s.At)
			}
		}
	}
	return all
}

// most returns the largest number of polls in any span of a length.
func (r *rig) most(from, to time.Time, length time.Duration) int {
	var all []time.Time
	for _, list := range r.polls(from, to) {
		all = append(all, list...)
	}
	slices.SortFunc(all, time.Time.Compare)
	most, first := 0, 0
	for i, at := range all {
		for at.Sub(all[first]) > length {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}
