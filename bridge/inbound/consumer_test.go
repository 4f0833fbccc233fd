package inbound

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"
)

// TestMixedFailures: 30% of answers fail; every message is posted, in order,
// with one result and no dead letter.
func TestMixedFailures(t *testing.T) {
	const n, devices = 2000, 50
	r := newRig(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	var tries atomic.Int64
	api := newFakeAPI(nil)
	api.answer = func(string, int, []byte) error {
		api.mu.Lock()
		defer api.mu.Unlock()
		if rnd.IntN(10) < 3 {
			tries.Add(1)
			return status([]int{500, 502, 408, 425}[rnd.IntN(4)])
		}
		return nil
	}
	r.putMany(n, func(i int) string { return device(i % devices) })
	run(t, r.consumer(api))
	r.waitCount(subjects.Inbound(), 0)
	if again := checkOrder(t, api.accepted(), n); again != 0 {
		t.Errorf("%d posted twice", again)
	}
	api.checkOverlap(t, 8)
	r.waitCount(subjects.Results(), n)
	if got := r.count(subjects.DeadLetters()); got != 0 {
		t.Errorf("%d dead letters", got)
	}
	if tries.Load() < n/10 {
		t.Errorf("only %d tries failed: the test does not test", tries.Load())
	}
}

// TestDeepBacklog: one device fails with a long backlog at the head of the
// stream, longer than anything that is held; the others' messages behind it are
// posted meanwhile, and its own in order once it is well.
func TestDeepBacklog(t *testing.T) {
	for _, tt := range []struct {
		name    string
		backlog int
		set     func(*Consumer)
	}{
		{"as it is", 20000, func(*Consumer) {}},
		{"window of the server full", 3000, func(c *Consumer) { c.limits.ackPending = 100 }},
		{"hand full", 3000, func(c *Consumer) { c.limits.hand = 32 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			var well atomic.Bool
			api := newFakeAPI(func(id string, _ int, _ []byte) error {
				if id == "bad" && !well.Load() {
					return status(500)
				}
				return nil
			})
			r.putMany(tt.backlog, func(int) string { return "bad" })
			const others = 400
			for i := range others {
				r.put(subjects.InLocation(device(i%20)), location(tt.backlog+i))
			}
			c := r.consumer(api, tt.set)
			run(t, c)
			api.waitFor(t, "posts of the others", func(took []accepted) bool { return len(took) == others })
			checkOrder(t, api.accepted(), others)
			if s := c.Status(); s.InHand > c.limits.hand {
				t.Errorf("%d messages in hand, want at most %d", s.InHand, c.limits.hand)
			}
			well.Store(true)
			r.waitCount(subjects.Inbound(), 0)
			if again := checkOrder(t, api.accepted(), tt.backlog+others); again != 0 {
				t.Errorf("%d posted twice", again)
			}
			api.checkOverlap(t, 8)
		})
	}
}

// TestSteal: deliveries that get lost on the way are noticed, and no later
// message overtakes them.
func TestLostDeliveries(t *testing.T) {
	r := newRig(t)
	api := newFakeAPI(nil)
	api.delay = time.Millisecond
	r.putMany(1000, func(i int) string { return device(i % 10) })
	run(t, r.consumer(api, func(c *Consumer) { c.limits.fetch = 10 }))
	api.waitFor(t, "first posts", func(took []accepted) bool { return len(took) > 50 })
	thief, err := r.js.Consumer(t.Context(), subjects.Inbound(), ConsumerName)
	if err != nil {
		t.Fatal(err)
	}
	batch, err := thief.Fetch(20)
	if err != nil {
		t.Fatal(err)
	}
	stolen := 0
	for range batch.Messages() {
		stolen++
	}
	if stolen == 0 {
		t.Fatal("nothing was stolen: the test does not test")
	}
	r.waitCount(subjects.Inbound(), 0)
	checkOrder(t, api.accepted(), 1000)
	api.checkOverlap(t, 8)
}
