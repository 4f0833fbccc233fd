package examples_test

import (
	"bytes"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// collector keeps the requests of OTLP exporters, unchanged.
type collector struct {
	mu   sync.Mutex
	sent [][]byte
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil || r.URL.Path != "/v1/traces" {
		http.Error(w, "no", http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent = append(c.sent, body)
}

// has reports whether one export holds all of these.
func (c *collector) has(parts ...[]byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, body := range c.sent {
		all := true
		for _, part := range parts {
			all = all && bytes.Contains(body, part)
		}
		if all {
			return true
		}
	}
	return false
}

// traced checks that the example's span is in the trace that the bridge began.
func traced(t *testing.T, built func(*testing.T) string) {
	c := &collector{}
	srv := httptest.NewServer(c)
	t.Cleanup(srv.Close)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", srv.URL)
	r := newRig(t)
	r.waitForEvent(t)
	r.moves(t)
	nc, err := nats.Connect(r.url, nats.UserInfo("subscriber", "pass-of-SUBSCRIBER"), nats.Timeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	events, err := nc.SubscribeSync("plaspy.location.*")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	t.Setenv("OTEL_SERVICE_NAME", "reader-of-locations")
	p := r.start("subscriber", ".", filepath.Join(built(t), "traced"), "-n", "1")
	line := <-p.lines
	p.ends()
	id, _, _ := strings.Cut(line, " ")
	for {
		msg, err := events.NextMsg(time.Minute)
		if err != nil {
			t.Fatalf("no event is of the printed trace %q: %v", line, err)
		}
		if parts := strings.Split(msg.Header.Get("traceparent"), "-"); len(parts) == 4 && parts[1] == id {
			break
		}
	}
	raw, err := hex.DecodeString(id)
	if err != nil {
		t.Fatal(err)
	}
	if !c.has(raw, []byte("reader-of-locations"), []byte("process plaspy.location.dev=201")) {
		t.Error("the collector has no span of the example in that trace")
	}
}
