package inbound

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"plaspy-bridge/auth"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/publisher/natstest"
)

// keyRotated is the API after its key was replaced: it accepts neither the token
// that was granted before nor the key.
type keyRotated struct {
	rotated atomic.Bool
	refused atomic.Int64 // posts
}

func (k *keyRotated) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "application/json")
	switch {
	case strings.HasSuffix(r.URL.Path, "/Auth/Token") && k.rotated.Load():
		_, _ = io.WriteString(w, `{"success":false,"error":"Invalid API key or username."}`)
	case strings.HasSuffix(r.URL.Path, "/Auth/Token"):
		_, _ = io.WriteString(w, `{"success":true,"token":"t","expires":"2099-12-31T23:59:59Z"}`)
	case k.rotated.Load():
		k.refused.Add(1)
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"success":false,"error":"no"}`)
	default:
		_, _ = io.WriteString(w, `{"success":true}`)
	}
}

// rotatedRig has a real client that got its token before the key was replaced.
func rotatedRig(t *testing.T, set func(*Consumer)) (*rig, *keyRotated, *Consumer) {
	t.Helper()
	r, api := newRig(t), &keyRotated{}
	srv := httptest.NewServer(api)
	t.Cleanup(srv.Close)
	log := slog.New(slog.DiscardHandler)
	base, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	o := plaspy.Options{BaseURL: base, Timeout: 30 * time.Second, Log: log, Budget: plaspy.NewBudget(0, log, nil)}
	o.Transport = plaspy.NewTransport(o)
	t.Cleanup(func() {
		if pool, ok := o.Transport.(interface{ CloseIdleConnections() }); ok {
			pool.CloseIdleConnections()
		}
	})
	cfg, err := plaspy.TokenConfig(o, "u", func() (string, error) { return "k", nil })
	if err != nil {
		t.Fatal(err)
	}
	o.Tokens = auth.New(cfg, log, nil)
	natstest.Run(t, func(ctx context.Context) { _ = o.Tokens.Run(ctx) })
	client, err := plaspy.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.Tokens.Token(t.Context()); err != nil {
		t.Fatal(err)
	}
	api.rotated.Store(true)
	return r, api, r.consumer(client, func(c *Consumer) { c.opt.Workers = 2; set(c) })
}

// TestAgeWhileKeyIsRefused: the age of messages runs while the key is refused.
func TestAgeWhileKeyIsRefused(t *testing.T) {
	t.Parallel()
	r, _, c := rotatedRig(t, func(c *Consumer) { c.opt.MaxAge = 2 * time.Second })
	r.putMany(6, device)
	run(t, c)
	r.waitCount(subjects.DeadLetters(), 6)
	r.waitCount(subjects.Inbound(), 0)
}

// TestStopWhileKeyIsRefused checks that a stop does not wait for posts with a refused
// token.
func TestStopWhileKeyIsRefused(t *testing.T) {
	r, api, c := rotatedRig(t, func(c *Consumer) { c.opt.Grace = time.Hour })
	r.putMany(6, device)
	stop := run(t, c)
	// The second worker may already wait for a token before it sends anything.
	natstest.Eventually(t, "a post is refused", func() bool { return api.refused.Load() >= 1 })
	stop()
	r.waitCount(subjects.Inbound(), 6)
}
