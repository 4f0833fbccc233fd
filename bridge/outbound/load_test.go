package outbound

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/heap"
	"plaspy-bridge/bridge/outbound/schedule"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

// largeState is a state with so many devices, each with a location that announces
// two alerts.
type largeState struct{ devices int }

// State implements [State].
func (l largeState) State(_ context.Context, _ bool, f func(publisher.Stored)) (publisher.Mark, error) {
	now := time.Now()
	for i := range l.devices {
		token := fmt.Sprint("device", i)
		seq := uint64(4*i + 1)
		f(publisher.Stored{Kind: "device", Device: token, Seq: seq, At: now, Body: fmt.Appendf(nil, `{"deviceId":%q,"change":"added","device":{"id":%q,"name":"x"},"observedAt":"2026-01-02T03:04:05.678Z"}`, token, token)})
		f(publisher.Stored{
			Kind: "location", Device: token, Seq: seq + 1, At: now, Header: map[string][]string{publisher.HeaderEdges: {"+SOS +Door"}},
			Body: fmt.Appendf(nil, `{"deviceId":%q,"observedAt":"2026-01-02T03:04:05.678Z","location":%s}`, token, wide(i%3600, i)),
		})
		for k, alert := range []string{"SOS", "Door"} {
			f(publisher.Stored{Kind: "alert", Device: token, Alert: alert, Seq: seq + 2 + uint64(k), At: now, Body: fmt.Appendf(nil, `{"deviceId":%q,"alert":%q,"state":"raised","critical":false,"texts":["t"],"dateTime":"2026-01-02T03:04:05Z"}`, token, alert)})
		}
	}
	return publisher.Mark{FirstSeq: 1, LastSeq: uint64(4 * l.devices)}, nil
}

// StateOf implements [State].
func (largeState) StateOf(context.Context, string, bool, func(publisher.Stored)) error { return nil }

// Mark implements [State].
func (largeState) Mark(context.Context) (publisher.Mark, error) { return publisher.Mark{}, nil }

// load reads a large state and returns how long that took, and the longest time for
// which a caller waited meanwhile.
func load(t testing.TB, devices int) (took, wait time.Duration) {
	t.Helper()
	parts := parts(newFakeAPI(), nil, schedule.NewFixed(time.Minute))
	parts.State = largeState{devices}
	p := New(options(), parts)
	stop, done := make(chan struct{}), make(chan time.Duration)
	go func() {
		var longest time.Duration
		ticker := time.NewTicker(time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-stop:
				done <- longest
				return
			case <-ticker.C:
			}
			start := time.Now()
			p.Work()
			longest = max(longest, time.Since(start))
		}
	}()
	start := time.Now()
	n, err := p.load(t.Context())
	took = time.Since(start)
	close(stop)
	wait = <-done
	if err != nil || n != devices {
		t.Fatalf("%d devices, %v", n, err)
	}
	if d := p.fleet.devices["device7"]; d.track.Seq != 30 || len(d.track.Raised) != 2 || d.track.Unpublished() != 0 {
		t.Fatalf("device7: %+v", d.track)
	}
	return took, wait
}

// TestLargeState: nothing waits for the reading of the state. The fleet's mutex is
// held for a small part of it at a time.
func TestLargeState(t *testing.T) {
	var took, wait time.Duration
	for range 5 { // a caller that does not get the CPU waits too
		took, wait = load(t, 20_000)
		t.Logf("read in %v, the longest wait was %v", took, wait)
		if wait <= took/2+50*time.Millisecond {
			return
		}
	}
	t.Errorf("a caller waited %v of the %v that the reading took", wait, took)
}

// longMessages is a state of long messages with long subjects. full is called when
// all of them were read.
type longMessages struct {
	largeState
	full func()
}

// State implements [State].
func (l longMessages) State(ctx context.Context, allAlerts bool, f func(publisher.Stored)) (publisher.Mark, error) {
	part := func(token string) string { return (token + strings.Repeat(".", 4<<10))[:len(token)] }
	mark, err := l.largeState.State(ctx, allAlerts, func(s publisher.Stored) {
		s.Device, s.Alert = part(s.Device), part(s.Alert)
		s.Body = append(slices.Clip(s.Body), bytes.Repeat([]byte(" "), 8<<10)...)
		s.Header = map[string][]string{publisher.HeaderEdges: s.Header[publisher.HeaderEdges], "Other": {strings.Repeat("x", 1<<10)}}
		f(s)
	})
	l.full()
	return mark, err
}

// TestLoadKeepsNoMessages: while the state is read, the memory holds the content of
// the messages that were read, and not the messages.
func TestLoadKeepsNoMessages(t *testing.T) {
	const devices = 1_000
	parts := parts(newFakeAPI(), nil, schedule.NewFixed(time.Minute))
	before, held := heap.Live(), int64(0)
	parts.State = longMessages{largeState{devices}, func() { held = heap.Live() - before }}
	if n, err := New(options(), parts).load(t.Context()); err != nil || n != devices {
		t.Fatalf("%d devices, %v", n, err)
	}
	if most := int64(4 << 10); held > most*devices {
		t.Errorf("%d bytes a device, want at most %d", held/devices, most)
	}
}

// BenchmarkLoad shows that the time grows linearly with the fleet.
func BenchmarkLoad(b *testing.B) {
	for _, devices := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprint(devices), func(b *testing.B) {
			b.ReportAllocs()
			var longest time.Duration
			for b.Loop() {
				_, wait := load(b, devices)
				longest = max(longest, wait)
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/float64(devices), "us/device")
			b.ReportMetric(float64(longest.Microseconds())/1000, "ms/longest-wait")
		})
	}
}

// BenchmarkRestart reads the state of a large fleet from a server, as a restart
// does.
func BenchmarkRestart(b *testing.B) {
	for _, devices := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprint(devices), func(b *testing.B) {
			pub := natstest.Start(b).Publisher(b, subjects)
			js := pub.JetStream()
			var list []publisher.Stored
			if _, err := (largeState{devices}).State(b.Context(), false, func(s publisher.Stored) { list = append(list, s) }); err != nil {
				b.Fatal(err)
			}
			for i := range list {
				s := &list[i]
				subject := subjects.Location(s.Device)
				switch s.Kind {
				case "device":
					subject = subjects.Device(s.Device)
				case "alert":
					subject = subjects.Alert(s.Device, s.Alert)
				}
				if _, err := js.PublishMsgAsync(&nats.Msg{Subject: subject, Header: s.Header, Data: s.Body}, jetstream.WithStallWait(time.Minute)); err != nil {
					b.Fatal(err)
				}
			}
			<-js.PublishAsyncComplete()
			list = nil
			b.ResetTimer()
			for b.Loop() {
				p := New(options(), parts(newFakeAPI(), pub, schedule.NewFixed(time.Minute)))
				if n, err := p.load(b.Context()); err != nil || n != devices {
					b.Fatal(n, err)
				}
			}
		})
	}
}
