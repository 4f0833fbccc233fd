package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"time"

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
	Env      []string // further variables of the bridge, each NAME=value
}

// Nothing is an Options.Record that remembers no answers: a run that is measured
// and not judged.
const Nothing = -1

// timeout is PLASPY_TIMEOUT.
const timeout = 10 * time.Second

// workers is BRIDGE_WORKERS.
const workers = 16

// prefix is BRIDGE_PREFIX.
const prefix publisher.Subjects = "plaspy"

// Rig is an API, a broker and a bridge between them.
type Rig struct {
	API    *API
	Broker *Broker
	Bridge *Bridge

	opts     Options
	start    time.Time
	producer *Producer  // nil unless inbound messages are part of the run
	accepted []Accepted // by the inbound stream, once the producer has ended
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
	natsAddr, err := o.Ports.Take(ctx)
	if err != nil {
		return nil, err
	}
	httpAddr, err := o.Ports.Take(ctx)
	if err != nil {
		return nil, err
	}
	if r.Broker, err = NewBroker(o.Binaries.Broker, o.Dir, natsAddr); err != nil {
		return nil, err
	}
	env := slices.Clone(o.Env)
	if o.Backfill {
		env = append(env, "BRIDGE_BACKFILL=true")
	}
	r.Bridge = NewBridge(o.Binaries.Bridge, o.Dir, r.Broker.URL(), httpAddr, r.API, env)
	return r, nil
}

// Close ends what still runs.
func (r *Rig) Close() {
	if r.producer != nil {
		r.producer.Stop()
	}
	r.Bridge.end()
	r.Broker.close()
	r.API.Close()
}

// Start starts the broker and the bridge and waits until the bridge is ready.
func (r *Rig) Start(ctx context.Context) error {
	if err := r.Broker.Start(ctx); err != nil {
		return err
	}
	if err := r.Bridge.Start(ctx); err != nil {
		return err
	}
	return r.Bridge.Ready(ctx)
}

// Settle ends the producer, waits until every device was asked about once more
// by a bridge that says that it is ready and every inbound message is finished,
// and then stops the bridge, which has to end well.
func (r *Rig) Settle(ctx context.Context) error {
	if err := r.Bridge.Ready(ctx); err != nil {
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
	life, err := r.Bridge.Stop(ctx)
	if err != nil {
		return err
	}
	if life.Status != 0 {
		log, _ := r.Bridge.Log()
		return fmt.Errorf("plaspy-bridge ended with status %d after SIGTERM: %s", life.Status, tail(log))
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
			log, _ := r.Bridge.Log()
			return fmt.Errorf("%d devices, among them %s, are not asked about: %w\n%s", len(left), left[0], context.Cause(ctx), tail(log))
		}
	}
}

// Case gathers what the run is judged by.
func (r *Rig) Case(ctx context.Context) (Case, error) {
	c := Case{
		Shown: map[string][]Answer{}, Lives: r.Bridge.Lives(), Away: r.Broker.Away(), Losses: r.Broker.Losses(),
		Grace: 2 * time.Second, Timeout: timeout, Workers: workers,
	}
	var err error
	if c.Events, err = ReadEvents(ctx, r.Broker.JetStream(), prefix); err != nil {
		return c, err
	}
	if r.opts.Backfill {
		c.History = map[string][]string{}
	}
	for _, id := range r.API.Sim.IDs() {
		c.Shown[id] = r.answers(id)
		if !r.opts.Backfill {
			continue
		}
		if c.History[id], err = r.history(ctx, id); err != nil {
			return c, err
		}
	}
	return c, nil
}

func (r *Rig) answers(id string) []Answer {
	var list []Answer
	for _, s := range r.API.Sim.Shown(id) {
		if s.Raw != "" && s.Fault == "" {
			list = append(list, Answer{At: s.At, Life: r.API.lifeOf(s.Token), Raw: s.Raw})
		}
	}
	return list
}

// Report judges the run after [Rig.Settle].
func (r *Rig) Report(ctx context.Context, name string, p Plan) (Report, error) {
	c, err := r.Case(ctx)
	if err != nil {
		return Report{}, err
	}
	report := Judge(c)
	report.Name, report.Seed, report.For, report.Faults = name, r.opts.Seed, time.Since(r.start), p.Counts()
	for i, l := range c.Lives {
		report.CPU += l.CPU
		report.RSS = max(report.RSS, l.RSS)
		switch {
		case l.Killed:
		case !l.Asked:
			report.Problems = append(report.Problems, fmt.Sprintf("life %d of the bridge ended by itself with status %d", i, l.Status))
		case l.Status != 0:
			report.Problems = append(report.Problems, fmt.Sprintf("life %d of the bridge ended with status %d after SIGTERM", i, l.Status))
		}
	}
	if r.producer != nil {
		in, err := r.inboundCase(ctx, r.accepted)
		if err != nil {
			return report, err
		}
		var details []string
		report.Inbound, details = JudgeInbound(in)
		for _, d := range details {
			report.say("%s", d)
		}
	}
	log, err := r.Bridge.Log()
	report.Problems = append(report.Problems, complaints(log)...)
	return report, err
}

// history asks the simulator for everything that it keeps of a device.
func (r *Rig) history(ctx context.Context, id string) ([]string, error) {
	client := &http.Client{Transport: r.API.Sim.Transport()}
	var token struct{ Token string }
	key := map[string]string{"userName": "sim", "apiKey": APIKey}
	if err := ask(ctx, client, "/api/Auth/Token", "", key, &token); err != nil {
		return nil, err
	}
	var answer struct{ Locations []json.RawMessage }
	all := map[string]time.Time{"from": r.start.Add(-time.Hour), "to": time.Now().Add(time.Hour)}
	if err := ask(ctx, client, "/api/devices/"+url.PathEscape(id)+"/locations", token.Token, all, &answer); err != nil {
		return nil, err
	}
	list := make([]string, len(answer.Locations))
	for i, raw := range answer.Locations {
		list[i] = string(raw)
	}
	return list, nil
}

func ask(ctx context.Context, client *http.Client, path, token string, body, answer any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("ask the simulator: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://sim"+path, bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("ask the simulator: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("ask the simulator: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask the simulator for %s: %s", path, resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
		return fmt.Errorf("ask the simulator for %s: %w", path, err)
	}
	return nil
}

// errPlan tells that a step of a plan could not be carried out.
var errPlan = errors.New("fault not injected")
