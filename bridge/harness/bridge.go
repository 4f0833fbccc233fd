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

	"plaspy-bridge/bridge/harness/front"
	"plaspy-bridge/bridge/harness/network"
	"plaspy-bridge/bridge/harness/process"
	"plaspy-bridge/bridge/harness/timeline"
)

// Bridge is a plaspy-bridge process with its environment.
type Bridge struct {
	*process.Process

	o      BridgeOptions
	env    []string
	client *http.Client
}

// BridgeOptions are the settings of a bridge.
type BridgeOptions struct {
	Binary string
	Dir    string // of its data and its log
	API    *front.API
	NATS   string   // URL of the broker, or empty for the embedded one
	HTTP   string   // address on which the bridge listens
	Env    []string // further variables, each "NAME=value"

	Index int           // in the rig
	ID    string        // BRIDGE_REPLICA_ID; if empty, the bridge chooses it
	Link  *network.Link // to the broker; if nil, NATS is the broker's own URL
}

// APIKey is the key of the account. It must not appear in a log.
const APIKey = "harness-key-c0ffee5ec2e7"

// NewBridge makes a bridge that does not run yet.
func NewBridge(o BridgeOptions) *Bridge {
	name := "plaspy-bridge"
	if o.ID != "" {
		name = o.ID
	}
	env := []string{
		// A high limit. Without one, a bridge that gets 429 for one of its first requests
		// estimates half of its rate.
		"PLASPY_RATE_LIMIT=60000",
		"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "GORACE=halt_on_error=1",
		"PLASPY_TIMEOUT=" + timeout.String(), "PLASPY_USERNAME=sim", "PLASPY_API_KEY=" + APIKey,
		"NATS_URL=" + o.NATS, "BRIDGE_HTTP_ADDR=" + o.HTTP, "BRIDGE_DATA_DIR=" + filepath.Join(o.Dir, "data"),
		"BRIDGE_POLL_INTERVAL=500ms", "BRIDGE_BACKOFF_INITIAL=100ms", "BRIDGE_BACKOFF_MAX=1s",
		"BRIDGE_SHUTDOWN_TIMEOUT=10s", fmt.Sprint("BRIDGE_WORKERS=", workers), "BRIDGE_LOG_FORMAT=json",
	}
	return &Bridge{
		Process: process.New(name, o.Binary, filepath.Join(o.Dir, "plaspy-bridge.log")),
		o:       o, env: append(env, o.Env...),
		client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 2 * time.Second},
	}
}

// Start starts the bridge with a door of its own to the API.
func (b *Bridge) Start(ctx context.Context) error {
	door, err := b.o.API.Open(ctx, b.o.Index, len(b.Process.Lives()))
	if err != nil {
		return err
	}
	return b.Process.Start([]string{"run"}, append(b.Env(), "PLASPY_BASE_URL="+door.URL))
}

// Index returns the index of the bridge in the rig, from 0.
func (b *Bridge) Index() int { return b.o.Index }

// Lives returns every run so far with the cuts of the bridge's link. The caller owns the
// slice.
func (b *Bridge) Lives() []timeline.Life {
	lives := b.Process.Lives()
	var cuts []timeline.Span
	if b.o.Link != nil {
		cuts = b.o.Link.Cuts()
	}
	for i := range lives {
		l := &lives[i]
		l.Bridge = b.o.Index
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

// Env returns the bridge's environment without the URL of the API.
func (b *Bridge) Env() []string { return slices.Clone(b.env) }

// Health is the answer of /readyz, with the reason of each part that is not ready.
type Health struct {
	Ready   bool
	Reasons map[string]string
}

// Health asks the bridge for its health.
func (b *Bridge) Health(ctx context.Context) (Health, error) {
	h := Health{Reasons: map[string]string{}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.o.HTTP+"/readyz", nil)
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
	var answer struct {
		Parts map[string]struct {
			OK     bool
			Reason string
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return h, fmt.Errorf("ask the bridge: %w", err)
	}
	h.Ready = resp.StatusCode == http.StatusOK
	for name, part := range answer.Parts {
		if !part.OK {
			h.Reasons[name] = part.Reason
		}
	}
	return h, nil
}

// Await asks the bridge for its health until the answer suits. It fails if the bridge ends
// or the context is cancelled.
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
			return fmt.Errorf("plaspy-bridge ended: %s", b.LogEnd())
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("plaspy-bridge reports %v: %w\n%s", last, context.Cause(ctx), b.LogEnd())
		}
	}
}

// Ready waits until the bridge reports that it is ready.
func (b *Bridge) Ready(ctx context.Context) error {
	return b.Await(ctx, func(h Health) bool { return h.Ready })
}

// complaints returns the parts of a log that no fault explains: panics, data races and
// secrets.
func complaints(log string) []string {
	var found []string
	for _, bad := range []string{"panic: ", "fatal error: ", "DATA RACE", APIKey, "Bearer ", "eyJ"} {
		if i := strings.Index(log, bad); i >= 0 {
			found = append(found, fmt.Sprintf("the bridge's log has %q: %s", bad, log[i:min(len(log), i+1500)]))
		}
	}
	return found
}
