package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"plaspy-bridge/bridge/harness/front"
	"plaspy-bridge/bridge/harness/judge"
	"plaspy-bridge/bridge/harness/natsserver"
	"plaspy-bridge/bridge/harness/network"
	"plaspy-bridge/bridge/harness/process"
	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/bridge/sim/fleet"
	"plaspy-bridge/publisher/natstest/loopback"
)

// Options are the settings of a rig.
type Options struct {
	Binaries process.Binaries
	Ports    *loopback.Ports
	Dir      string // for its logs and stores

	Devices int
	Profile fleet.Profile // if nil, fleet.EverySecond
	Seed    uint64
	// Record is the number of answers that are kept per device. It has to be larger than
	// the number of answers in the run. 0 means 100,000.
	Record int

	Backfill bool
	Env      []string // further variables of every bridge, each "NAME=value"

	// Bridges is the number of bridges that start together. 0 means 1. Each of several
	// bridges has a BRIDGE_REPLICA_ID.
	Bridges int
	// Linked puts a [network.Link] between each bridge and the broker.
	Linked bool
	// HTTP is the version of HTTP, 1 or 2, that the API uses over TLS. 0 means HTTP/1
	// without TLS.
	HTTP int
	// Limit is PLASPY_RATE_LIMIT. The report checks that all bridges together keep to it.
	// 0 means a limit that is never reached.
	Limit int
}

// Nothing is the [Options.Record] that keeps no answers, for a run that is measured and
// not judged.
const Nothing = -1

// timeout is PLASPY_TIMEOUT.
const timeout = 10 * time.Second

// grace is how long before a kill an answer may come and not be stored.
const grace = 2 * time.Second

// workers is BRIDGE_WORKERS.
const workers = 16

// inboundWorkers is the default of BRIDGE_INBOUND_WORKERS.
const inboundWorkers = 16

// Rig is an API, a broker and the bridges between them.
type Rig struct {
	API    *front.API
	Broker *natsserver.Broker
	Bridge *Bridge // the first one

	opts     Options
	start    time.Time
	producer *Producer        // nil without inbound messages
	accepted []judge.Accepted // by the inbound stream, set when the producer has ended

	mu      sync.Mutex
	bridges []*Bridge
}

// NewRig makes a rig in which only the API runs. The caller closes it.
func NewRig(ctx context.Context, o Options) (*Rig, error) {
	if o.Profile == nil {
		o.Profile = fleet.EverySecond
	}
	if o.Record == 0 {
		o.Record = 100_000
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("harness: %w", err)
	}
	s := sim.New(sim.Options{Devices: o.Devices, Seed: o.Seed, Profile: o.Profile, APIKey: APIKey, Record: o.Record, History: 10_000})
	r := &Rig{API: front.New(s, o.Ports), opts: o, start: time.Now()}
	if o.HTTP > 0 {
		env, err := r.API.Secure(o.HTTP, o.Dir)
		if err != nil {
			return nil, err
		}
		r.opts.Env = append(slices.Clone(o.Env), env...)
	}
	natsAddr, err := o.Ports.Take(ctx)
	if err != nil {
		return nil, err
	}
	if r.Broker, err = natsserver.New(o.Binaries.Broker, o.Dir, natsAddr); err != nil {
		return nil, err
	}
	for range max(o.Bridges, 1) {
		if _, err := r.Add(ctx); err != nil {
			r.Close()
			return nil, err
		}
	}
	r.Bridge = r.bridges[0]
	return r, nil
}

// Add adds a bridge, which does not run yet.
func (r *Rig) Add(ctx context.Context) (*Bridge, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.opts
	httpAddr, err := o.Ports.Take(ctx)
	if err != nil {
		return nil, err
	}
	n := len(r.bridges)
	dir, id, url := o.Dir, "", r.Broker.URL()
	var env []string
	if n > 0 || o.Bridges > 1 {
		id = fmt.Sprint("replica-", n)
		dir = filepath.Join(o.Dir, id)
		env = append(env, "BRIDGE_REPLICA_ID="+id)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("harness: %w", err)
	}
	var link *network.Link
	if o.Linked {
		addr, err := o.Ports.Take(ctx)
		if err != nil {
			return nil, err
		}
		if link, err = network.NewLink(ctx, addr, r.Broker.Addr()); err != nil {
			return nil, err
		}
		url = link.URL()
	}
	if o.Limit > 0 {
		env = append(env, fmt.Sprint("PLASPY_RATE_LIMIT=", o.Limit))
	}
	if o.Backfill {
		env = append(env, "BRIDGE_BACKFILL=true")
	}
	b := NewBridge(BridgeOptions{
		Binary: o.Binaries.Bridge, Dir: dir, API: r.API, NATS: url, HTTP: httpAddr, Env: append(env, o.Env...),
		Index: n, ID: id, Link: link,
	})
	r.bridges = append(r.bridges, b)
	return b, nil
}

// setting returns a number from the bridges' variables.
func (r *Rig) setting(name string, otherwise int) int {
	n := otherwise
	for _, set := range r.opts.Env {
		if text, ok := strings.CutPrefix(set, name+"="); ok {
			n, _ = strconv.Atoi(text) // the bridge refuses a malformed number
		}
	}
	return n
}

// Bridges returns all bridges by their index, including those that do not run.
func (r *Rig) Bridges() []*Bridge {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.bridges)
}

// Running returns the bridges that run or are suspended, in the order of their index.
func (r *Rig) Running() []*Bridge {
	return slices.DeleteFunc(r.Bridges(), func(b *Bridge) bool { return !b.Running() })
}

// Close ends all programs and the API.
func (r *Rig) Close() {
	if r.producer != nil {
		r.producer.Stop()
	}
	for _, b := range r.Bridges() {
		b.End()
		if b.o.Link != nil {
			b.o.Link.Close()
		}
	}
	r.Broker.Close()
	r.API.Close()
}

// Start starts the broker and all bridges and waits until they are ready.
func (r *Rig) Start(ctx context.Context) error {
	if err := r.Broker.Start(ctx); err != nil {
		return err
	}
	for _, b := range r.Bridges() {
		if err := b.Start(ctx); err != nil {
			return err
		}
	}
	return r.Ready(ctx)
}

// Ready waits until every running bridge reports that it is ready.
func (r *Rig) Ready(ctx context.Context) error {
	for _, b := range r.Running() {
		if err := b.Ready(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Settle ends the producer. It waits until the bridges are ready, have polled every device
// once more and have finished every inbound message. Then it stops them one after the
// other, each of which has to exit with status 0.
func (r *Rig) Settle(ctx context.Context) error {
	if err := r.Ready(ctx); err != nil {
		return err
	}
	if r.producer != nil {
		r.accepted = r.producer.Stop()
		if err := r.drained(ctx); err != nil {
			return err
		}
	}
	if err := r.Polled(ctx, time.Now()); err != nil {
		return err
	}
	for _, b := range r.Running() {
		life, err := b.Stop(ctx)
		if err != nil {
			return err
		}
		if life.Status != 0 {
			return fmt.Errorf("%s ended with status %d after SIGTERM: %s", b.Name(), life.Status, b.LogEnd())
		}
	}
	return nil
}

// Polled waits until the API has shown every device after an instant.
func (r *Rig) Polled(ctx context.Context, since time.Time) error {
	left := r.API.Sim.IDs()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		left = slices.DeleteFunc(left, func(id string) bool {
			shown := r.API.Sim.Shown(id)
			return len(shown) > 0 && shown[len(shown)-1].At.After(since)
		})
		if len(left) == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%d devices, among them %s, are not polled: %w\n%s", len(left), left[0], context.Cause(ctx), r.tails())
		}
	}
}

// tails returns the ends of the logs of the running bridges for an error message.
func (r *Rig) tails() string {
	var text strings.Builder
	for _, b := range r.Running() {
		fmt.Fprintf(&text, "%s:\n%s\n", b.Name(), b.LogEnd())
	}
	return text.String()
}

// errPlan is returned if a step of a plan could not be executed.
var errPlan = errors.New("fault not injected")
