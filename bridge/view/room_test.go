package view

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"plaspy-bridge/bridge/heap"
	"plaspy-bridge/publisher/natstest"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// TestManySlowPages requests two hundred streams and reads no byte of them. The
// view continues every second, disconnects all streams beyond its limit,
// and needs no more memory for them than their queues.
func TestManySlowPages(t *testing.T) {
	source := &plain{}
	reg := prometheus.NewRegistry()
	v := New(Options{Source: source, Log: quietLog, Registerer: reg})
	fleet := make([]Device, 10_000)
	for i := range fleet {
		fleet[i] = truck(fmt.Sprint("dev ", i), float32(i)/1000)
	}
	source.put(fleet...)
	v.update(time.Now())
	server := httptest.NewUnstartedServer(v)
	server.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		_ = c.(*net.TCPConn).SetWriteBuffer(4 << 10) // or the kernel takes megabytes in
		return ctx
	}
	server.Start()
	defer server.Close()
	defer v.stop()
	addr := strings.TrimPrefix(server.URL, "http://")
	// The first connection's costs are not the crowd's.
	ask(t, addr).Close()
	before := heap.Live()
	var conns []net.Conn
	refused := 0
	for range 200 {
		c := ask(t, addr)
		defer c.Close()
		conns = append(conns, c)
	}
	for _, c := range conns {
		status := make([]byte, len("HTTP/1.1 200"))
		if _, err := bufio.NewReaderSize(c, 16).Read(status); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(string(status), "503") {
			refused++
		}
	}
	if refused < 200-clientsAtOnce || refused == 200 {
		t.Errorf("%d of 200 refused, want all but %d", refused, clientsAtOnce)
	}
	longestTick := time.Duration(0)
	now := time.Now()
	for range 40 {
		now = now.Add(time.Second)
		for i := range 1000 {
			fleet[i].Lat += 0.01
			fleet[i].Seen = now
		}
		source.put(fleet[:1000]...)
		elapsed := natstest.Stopwatch()
		v.update(now)
		longestTick = max(longestTick, elapsed())
	}
	if dropped := testutil.ToFloat64(v.metrics.dropped); dropped == 0 {
		t.Error("no page was disconnected after 40 s without a read")
	}
	grown := heap.Live() - before
	t.Logf("%d refused, a tick took at most %s, heap grew by %d KiB", refused, longestTick, grown>>10)
	if grown > 24<<20 {
		t.Errorf("%d MiB more heap for pages that read nothing", grown>>20)
	}
	if longestTick > time.Second {
		t.Errorf("a tick took %s: slow pages hold up the view", longestTick)
	}
}

func ask(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(c, "GET /view/events HTTP/1.1\r\nHost: %s\r\n\r\n", addr); err != nil {
		t.Fatal(err)
	}
	return c
}

// trickle takes each part of a frame only just in time.
type trickle struct {
	*httptest.ResponseRecorder
	each time.Duration
	took int
}

func (w *trickle) Write(p []byte) (int, error) {
	time.Sleep(w.each)
	w.took += len(p)
	return len(p), nil
}

func (w *trickle) SetWriteDeadline(time.Time) error { return nil }

// TestPagesThatTrickle checks that a client that reads a part every few seconds does not
// hold a place in the view for longer than a minute, and that a slow one gets the picture.
func TestPagesThatTrickle(t *testing.T) {
	tests := []struct {
		name  string
		each  time.Duration
		whole bool
	}{
		{"a slow line", time.Second, true},
		{"a trickle", patience - time.Second, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				source := &plain{}
				for i := range 10_000 {
					source.put(truck(fmt.Sprint(i), 1))
				}
				v := New(Options{Source: source, Log: quietLog, Clients: 1})
				ctx, cancel := context.WithCancel(t.Context())
				var running sync.WaitGroup
				running.Go(func() { v.Run(ctx) })
				synctest.Wait()
				v.mu.Lock()
				picture := len(v.takeSnapshotLocked(time.Now()))
				v.mu.Unlock()
				w := &trickle{ResponseRecorder: httptest.NewRecorder(), each: tt.each}
				began := time.Now()
				v.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/view/events", nil))
				held := time.Since(began)
				if whole := w.took >= picture; whole != tt.whole {
					t.Errorf("it read %d of the picture's %d bytes in %s", w.took, picture, held)
				}
				if most := longest + 2*patience; held > most {
					t.Errorf("it held its place for %s, want %s at most", held, most)
				}
				if v.open != 0 || v.join() == nil {
					t.Errorf("%d places are still held", v.open)
				}
				cancel()
				running.Wait()
			})
		})
	}
}

// TestOrigins: only the bridge's own page may open streams.
func TestOrigins(t *testing.T) {
	tests := []struct {
		name, host, origin string
		status             int
	}{
		{"none", "127.0.0.1:8080", "", 404},
		{"its own", "127.0.0.1:8080", "http://127.0.0.1:8080", 404},
		{"behind a proxy with TLS", "Bridge.example", "https://bridge.example", 404},
		{"another host's", "127.0.0.1:8080", "http://evil.example:8080", 403},
		{"another port's", "127.0.0.1:8080", "http://127.0.0.1:3000", 403},
		{"of a frame without one", "127.0.0.1:8080", "null", 403},
		{"nonsense", "127.0.0.1:8080", "http://[", 403},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/view/why?device=x", nil)
			r.Host = tt.host
			if tt.origin != "" {
				r.Header.Set("Origin", tt.origin)
			}
			w := httptest.NewRecorder()
			New(Options{Source: &plain{}, Log: quietLog}).ServeHTTP(w, r)
			if w.Code != tt.status {
				t.Errorf("%d, want %d", w.Code, tt.status)
			}
		})
	}
}
