package inbound

import (
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// heap is what is in use, NATS server and all.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestBacklogMemory: ten times the backlog costs no more memory while it waits.
func TestBacklogMemory(t *testing.T) {
	const small, large, room = 10000, 100000, 16 << 20 // the larger one is 60 MB
	held := func(n int) uint64 {
		r := newRig(t)
		gate := make(chan struct{})
		api := newFakeAPI(func(string, int, []byte) error { <-gate; return status(404) })
		body := append(location(1), strings.Repeat(" ", 500)...)
		for i := range n {
			if _, err := r.js.PublishMsgAsync(&nats.Msg{Subject: subjects.InLocation(device(i % 5)), Data: body}); err != nil {
				t.Fatal(err)
			}
			if i%2000 == 1999 {
				<-r.js.PublishAsyncComplete()
			}
		}
		<-r.js.PublishAsyncComplete()
		c := r.consumer(api)
		// Five devices are too few for eight workers: the reader looks through
		// all there is for more, or until the server's window is full.
		stop := run(t, c)
		for end := time.Now().Add(60 * time.Second); ; {
			info, err := r.js.Consumer(t.Context(), subjects.Inbound(), ConsumerName)
			if err == nil && (info.CachedInfo().NumPending == 0 || info.CachedInfo().NumAckPending >= c.limits.ackPending) {
				break
			}
			if time.Now().After(end) {
				t.Fatal("the reader did not look through the stream")
			}
			<-time.After(5 * time.Millisecond)
		}
		used := heap()
		if s := c.Status(); s.InHand > c.limits.hand {
			t.Errorf("%d in hand", s.InHand)
		}
		close(gate)
		c.opt.JetStream.Conn().Close() // the backlog itself is of no interest
		c.opt.Grace = time.Millisecond
		stop()
		r.srv.Kill()
		return used
	}
	few := held(small)
	many := held(large)
	t.Logf("%d messages: %d KiB, %d messages: %d KiB", small, few>>10, large, many>>10)
	if many > few+room {
		t.Errorf("%d messages take %d bytes more than %d", large, many-few, small)
	}
}

// benchPoisoned posts b.N messages of 200 devices through an API that takes 2 ms;
// bad tells whether one of the devices fails every time.
func benchPoisoned(b *testing.B, bad bool) {
	r := newRig(b)
	const devices = 200
	done := make(chan struct{})
	var good atomic.Int64
	want := int64(0)
	for i := range b.N {
		if i%devices != 0 {
			want++
		}
	}
	if want == 0 {
		return // the trial run with one message
	}
	api := newFakeAPI(func(id string, _ int, _ []byte) error {
		if id == device(0) {
			if bad {
				return status(500)
			}
			return nil
		}
		if good.Add(1) == want {
			close(done)
		}
		return nil
	})
	api.delay = 2 * time.Millisecond
	r.putMany(b.N, func(i int) string { return device(i % devices) })
	b.ResetTimer()
	began := time.Now()
	stop := run(b, r.consumer(api, func(c *Consumer) { c.opt.BackoffInitial, c.opt.BackoffMax = 500*time.Millisecond, time.Minute }))
	<-done
	b.StopTimer()
	b.ReportMetric(float64(want)/time.Since(began).Seconds(), "posts/s")
	stop()
}

// BenchmarkPoisoned compares the other devices' throughput with that of a clean
// run.
func BenchmarkPoisoned(b *testing.B) {
	b.Run("clean", func(b *testing.B) { benchPoisoned(b, false) })
	b.Run("poisoned", func(b *testing.B) { benchPoisoned(b, true) })
}
