package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"plaspy-bridge/bridge/harness/timeline"
)

// Bridge is a plaspy-bridge process with its environment.
type Bridge struct {
	*Process

	api    *API
	index  int    // in the rig
	id     string // BRIDGE_REPLICA_ID; empty: the bridge's own choice
	link   *Link  // to the broker; nil: it has the broker's address
	http   string
	env    []string
	client *http.Client
}

// APIKey is the account's, and one that no log may show.
const APIKey = "harness-key-c0ffee5ec2e7"

// NewBridge makes a bridge that does not run yet. set are variables, each
// "NAME=value", that come on top of what the rig needs.
func NewBridge(bin, dir, natsURL, httpAddr string, api *API, set []string) *Bridge {
	env := []string{
		// A limit that never holds: without one, a 429 among the first requests
		// of a life has the bridge guess what half its rate is.
		"PLASPY_RATE_LIMIT=60000",
		"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "GORACE=halt_on_error=1",
		"PLASPY_TIMEOUT=" + timeout.String(), "PLASPY_USERNAME=sim", "PLASPY_API_KEY=" + APIKey,
		"NATS_URL=" + natsURL, "BRIDGE_HTTP_ADDR=" + httpAddr, "BRIDGE_DATA_DIR=" + filepath.Join(dir, "data"),
		"BRIDGE_POLL_INTERVAL=500ms", "BRIDGE_BACKOFF_INITIAL=100ms", "BRIDGE_BACKOFF_MAX=1s",
		"BRIDGE_SHUTDOWN_TIMEOUT=10s", fmt.Sprint("BRIDGE_WORKERS=", workers), "BRIDGE_LOG_FORMAT=json",
	}
	return &Bridge{
		Process: &Process{name: "plaspy-bridge", bin: bin, log: filepath.Join(dir, "plaspy-bridge.log")},
		api:     api, http: httpAddr, env: append(env, set...),
		client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 2 * time.Second},
	}
}

// Start starts the bridge before a door of its own.
func (b *Bridge) Start(ctx context.Context) error {
	door, err := b.api.open(ctx, b.index, len(b.Process.Lives()))
	if err != nil {
		return err
	}
	return b.Process.Start([]string{"run"}, append(b.Env(), "PLASPY_BASE_URL="+door.URL))
}

// Index tells which of the rig's bridges this is, from 0.
func (b *Bridge) Index() int { return b.index }

// ID is the replica's name; empty where the bridge chooses it.
func (b *Bridge) ID() string { return b.id }

// Link is the network to the broker, where [Options.Linked] has one; or nil.
func (b *Bridge) Link() *Link { return b.link }

// Lives gives every run so far, with what befell the bridge's link in it. The
// slice is the caller's.
func (b *Bridge) Lives() []timeline.Life {
	lives := b.Process.Lives()
	var cuts []timeline.Span
	if b.link != nil {
		cuts = b.link.Cuts()
	}
	for i := range lives {
		l := &lives[i]
		l.Bridge = b.index
		for _, c := range cuts {
			if (c.To.IsZero() || c.To.After(l.From)) && (l.To.IsZero() || l.To.After(c.From)) {
				l.Cuts = append(l.Cuts, c)
			}
		}
	}
	return lives
}

// Set sets further variables, each "NAME=value", for the next start.
func (b *Bridge) Set(env ...string) { b.env = append(b.env, env...) }

// Env is the bridge's environment but for the API's URL.
func (b *Bridge) Env() []string { return slices.Clone(b.env) }

// Binary is the path of the program.
func (b *Bridge) Binary() string { return b.bin }

// Upgrade has the next start be that of another program.
func (b *Bridge) Upgrade(bin string) { b.bin = bin }

// Health is what /readyz says: why each part that is not ready is not.
type Health struct {
	Ready   bool
	Reasons map[string]string
}

// Health asks the bridge how it fares.
func (b *Bridge) Health(ctx context.Context) (Health, error) {
	h := Health{Reasons: map[string]string{}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.http+"/readyz", nil)
	if err != nil {
		return h, fmt.Errorf("ask the bridge: %w", err)
	}
	resp, err := b.client.Do(req)
	if err != nil {
		return h, fmt.Errorf("ask the bridge: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return h, fmt.Errorf("ask the bridge: %w", err)
	}
	var said struct {
		Parts map[string]struct {
			OK     bool
			Reason string
		}
	}
	if err := json.Unmarshal(body, &said); err != nil {
		return h, fmt.Errorf("ask the bridge: %w", err)
	}
	h.Ready = resp.StatusCode == http.StatusOK
	for name, part := range said.Parts {
		if !part.OK {
			h.Reasons[name] = part.Reason
		}
	}
	return h, nil
}

// Await asks the bridge how it fares until the answer suits. It fails where the
// bridge ends, or the context.
func (b *Bridge) Await(ctx context.Context, suits func(Health) bool) error {
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	var last Health
	for {
		h, err := b.Health(ctx)
		if err == nil {
			if last = h; suits(h) {
				return nil
			}
		}
		if !b.Running() {
			log, _ := b.Log()
			return fmt.Errorf("plaspy-bridge ended: %s", tail(log))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			log, _ := b.Log()
			return fmt.Errorf("plaspy-bridge says %v: %w\n%s", last, context.Cause(ctx), tail(log))
		}
	}
}

// Ready waits until the bridge says that it is ready.
func (b *Bridge) Ready(ctx context.Context) error {
	return b.Await(ctx, func(h Health) bool { return h.Ready })
}

// complaints are what a log must never have, whatever was done to the bridge.
func complaints(log string) []string {
	var found []string
	for _, bad := range []string{"panic: ", "fatal error: ", "DATA RACE", APIKey, "Bearer ", "eyJ"} {
		if i := strings.Index(log, bad); i >= 0 {
			found = append(found, fmt.Sprintf("the bridge's log has %q: %s", bad, tail(log[i:min(len(log), i+1500)])))
		}
	}
	return found
}
