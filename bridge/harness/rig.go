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

	"plaspy-bridge/bridge/harness/judge"
	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/bridge/sim/fleet"
	"plaspy-bridge/publisher"
)

// Options say what a rig is made of.
type Options struct {
	Binaries Binaries
	Ports    *Ports
	Dir      string // of its own; logs and stores stay there

	Devices int
	Profile fleet.Profile // nil: fleet.EverySecond
	Seed    uint64
	// Record is how many answers are remembered per device; more than a run
	// brings. 0: 100,000.
	Record int

	Backfill bool
	Env      []string // further variables of every bridge, each NAME=value

	// Bridges is how many bridges start together; 0: 1. Where there are several,
	// each has a BRIDGE_REPLICA_ID.
	Bridges int
	// Linked puts a [Link] between each bridge and the broker.
	Linked bool
	// HTTP is the version of HTTP, 1 or 2, that the API speaks over TLS; 0: 1,
	// without TLS.
	HTTP int
	// Limit is PLASPY_RATE_LIMIT, to which the report holds all bridges
	// together; 0: one that never holds.
	Limit int
}

// Nothing is an Options.Record that remembers no answers: a run that is measured
// and not judged.
const Nothing = -1

// timeout is PLASPY_TIMEOUT.
const timeout = 10 * time.Second

// grace is how long before a kill an answer may have come and not be stored.
const grace = 2 * time.Second

// workers is BRIDGE_WORKERS.
const workers = 16

// inboundWorkers is the default of BRIDGE_INBOUND_WORKERS.
const inboundWorkers = 16

// prefix is BRIDGE_PREFIX.
const prefix publisher.Subjects = "plaspy"

// Rig is an API, a broker and the bridges between them.
type Rig struct {
	API    *API
	Broker *Broker
	Bridge *Bridge // the first one

	opts     Options
	start    time.Time
	producer *Producer        // nil unless inbound messages are part of the run
	accepted []judge.Accepted // by the inbound stream, once the producer has ended

	mu      sync.Mutex
	bridges []*Bridge
}

// NewRig makes a rig in which nothing runs but the API. Close it.
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
	r := &Rig{API: NewAPI(s, o.Ports), opts: o, start: time.Now()}
	if o.HTTP > 0 {
		env, err := r.API.secure(o.HTTP, o.Dir)
		if err != nil {
			return nil, err
		}
		r.opts.Env = append(slices.Clone(o.Env), env...)
	}
	natsAddr, err := o.Ports.Take(ctx)
	if err != nil {
		return nil, err
	}
	if r.Broker, err = NewBroker(o.Binaries.Broker, o.Dir, natsAddr); err != nil {
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

// Add makes a further bridge, which does not run yet.
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
	var link *Link
	if o.Linked {
		addr, err := o.Ports.Take(ctx)
		if err != nil {
			return nil, err
		}
		if link, err = NewLink(ctx, addr, r.Broker.addr); err != nil {
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
	b := NewBridge(o.Binaries.Bridge, dir, url, httpAddr, r.API, append(env, o.Env...))
	b.index, b.id, b.link = n, id, link
	if id != "" {
		b.name = id
	}
	r.bridges = append(r.bridges, b)
	return b, nil
}

// setting is a number among the bridges' variables.
func (r *Rig) setting(name string, otherwise int) int {
	n := otherwise
	for _, set := range r.opts.Env {
		if text, ok := strings.CutPrefix(set, name+"="); ok {
			n, _ = strconv.Atoi(text) // the bridge refuses what is no number
		}
	}
	return n
}

// Bridges gives all bridges, those that do not run too, by their index.
func (r *Rig) Bridges() []*Bridge {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.bridges)
}

// Running gives the bridges that run, or stand still, by their index.
func (r *Rig) Running() []*Bridge {
	return slices.DeleteFunc(r.Bridges(), func(b *Bridge) bool { return !b.Running() })
}

// Close ends what still runs.
func (r *Rig) Close() {
	if r.producer != nil {
		r.producer.Stop()
	}
	for _, b := range r.Bridges() {
		b.end()
		if b.link != nil {
			b.link.Close()
		}
	}
	r.Broker.close()
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

// Ready waits until every bridge that runs says that it is ready.
func (r *Rig) Ready(ctx context.Context) error {
	for _, b := range r.Running() {
		if err := b.Ready(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Settle ends the producer, waits until every device was asked about once more
// by bridges that say that they are ready and every inbound message is finished,
// and then stops the bridges one after the other, each of which has to end well.
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
			log, _ := b.Log()
			return fmt.Errorf("%s ended with status %d after SIGTERM: %s", b.name, life.Status, tail(log))
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
			return fmt.Errorf("%d devices, among them %s, are not asked about: %w\n%s", len(left), left[0], context.Cause(ctx), r.tails())
		}
	}
}

// tails are the ends of the logs of the bridges that run, for errors.
func (r *Rig) tails() string {
	var text strings.Builder
	for _, b := range r.Running() {
		log, _ := b.Log()
		fmt.Fprintf(&text, "%s:\n%s\n", b.name, tail(log))
	}
	return text.String()
}

// errPlan tells that a step of a plan could not be carried out.
var errPlan = errors.New("fault not injected")
