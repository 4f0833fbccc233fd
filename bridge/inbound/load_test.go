package inbound

import (
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"plaspy-bridge/bridge/heap"
	"plaspy-bridge/bridge/inbound/lane"
	"plaspy-bridge/publisher/natstest"
)

// TestBacklogMemory: ten times the backlog costs no more memory while it waits,
// headers included.
func TestBacklogMemory(t *testing.T) {
	const small, large, room = 5000, 50000, 16 << 20 // the larger one is 45 MB
	held := func(n int) int64 {
		r := newRig(t)
		gate := make(chan struct{})
		api := newFakeAPI(func(string, int, []byte) error { <-gate; return status(404) })
		body, header := append(location(1), strings.Repeat(" ", 500)...), nats.Header{"X": {strings.Repeat("x", 300)}}
		for i := range n {
			if _, err := r.js.PublishMsgAsync(&nats.Msg{Subject: subjects.InLocation(device(i % 5)), Header: header, Data: body}); err != nil {
				t.Fatal(err)
			}
			if i%2000 == 1999 {
				<-r.js.PublishAsyncComplete()
			}
		}
		<-r.js.PublishAsyncComplete()
		c := r.consumer(api)
		// Five devices are too few for eight workers: the reader looks through all
		// there is for more.
		stop := run(t, c)
		natstest.Eventually(t, "the stream is read", func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.lanes.Position() == uint64(n)
		})
		used := heap.Live()
		if s := c.Status(); s.InMemory > maxMessages {
			t.Errorf("%d messages in memory", s.InMemory)
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

// TestLoad: the estimate follows the tries and the backlog, smoothly, and forgets.
func TestLoad(t *testing.T) {
	d := &load{}
	now := time.Unix(1_000_000, 0)
	ask := func(backlog int, seconds int) (got int) {
		for range seconds {
			now = now.Add(time.Second)
			got = d.wanted(now, backlog)
		}
		return got
	}
	if got := ask(0, 10); got != 0 {
		t.Errorf("%d wanted of nothing", got)
	}
	if got := ask(1000, 1); got > 150 {
		t.Errorf("%d wanted for a backlog of a second", got)
	}
	if got := ask(1000, 40); got < 950 || got > 1000 {
		t.Errorf("%d wanted with 1000 waiting for 40 s", got)
	}
	last := ask(0, 1)
	for range 120 {
		now = now.Add(time.Second)
		for range 2 {
			d.tried(now)
		}
		got := d.wanted(now, 0)
		if got > last+2 && last > 121 {
			t.Errorf("%d wanted after %d although nothing waits any more", got, last)
		}
		last = got
	}
	if last < 105 || last > 121 {
		t.Errorf("%d wanted while 120 a minute are tried", last)
	}
	now = now.Add(-time.Hour)
	if got := d.wanted(now, 0); got < 0 || got > 121 {
		t.Errorf("%d wanted after the clock was set back", got)
	}
	if got := ask(0, 200); got != 0 {
		t.Errorf("%d wanted of a minute long gone", got)
	}
	c := &Consumer{log: slog.New(slog.DiscardHandler), lanes: lane.New(lane.Limits{Workers: 1})}
	if got := c.Wanted(true); got != 0 {
		t.Errorf("%d wanted by a replica that does not post", got)
	}
}

// benchHealthy posts b.N messages of 20 devices through an API that takes 2 ms,
// beside devices that always fail.
func benchHealthy(b *testing.B, failing int) {
	r := newRig(b)
	done := make(chan struct{})
	var good, bad atomic.Int64
	want := int64(b.N)
	api := newFakeAPI(func(id string, _ int, _ []byte) error {
		if strings.HasPrefix(id, "bad") {
			bad.Add(1)
			return status(408)
		}
		if good.Add(1) == want {
			close(done)
		}
		return nil
	})
	api.delay = 2 * time.Millisecond
	r.putMany(failing, func(i int) string { return fmt.Sprint("bad", i) })
	c := r.consumer(api, func(c *Consumer) {
		c.opt.Workers, c.opt.BackoffInitial, c.opt.BackoffMax = 16, 500*time.Millisecond, time.Minute
	})
	stop := run(b, c)
	natstest.Eventually(b, "each failing device was tried", func() bool { return bad.Load() >= int64(failing) })
	began := time.Now()
	b.ResetTimer()
	r.putMany(b.N, func(i int) string { return device(i % 20) })
	<-done
	b.StopTimer()
	b.ReportMetric(float64(want)/time.Since(began).Seconds(), "posts/s")
	stop()
}

// BenchmarkHealthy compares the throughput of healthy devices with and without
// 5,000 that always fail.
func BenchmarkHealthy(b *testing.B) {
	b.Run("alone", func(b *testing.B) { benchHealthy(b, 0) })
	b.Run("beside 5000", func(b *testing.B) { benchHealthy(b, 5000) })
}
