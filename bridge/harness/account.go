package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"time"

	"plaspy-bridge/bridge/harness/judge"
	"plaspy-bridge/bridge/harness/natsserver"
	"plaspy-bridge/bridge/harness/timeline"
)

// lives returns the runs of all bridges, and the index of the first run of each bridge.
func (r *Rig) lives() (all []timeline.Life, first []int) {
	for _, b := range r.Bridges() {
		first = append(first, len(all))
		all = append(all, b.Lives()...)
	}
	return all, first
}

// Case collects the facts of the run for the judge.
func (r *Rig) Case(ctx context.Context) (judge.Case, error) {
	lives, first := r.lives()
	c := judge.Case{
		Shown: map[string][]judge.Answer{}, Lives: lives, Away: r.Broker.Away(), Losses: r.Broker.Losses(),
		Grace: grace, Timeout: timeout, Workers: r.setting("BRIDGE_WORKERS", workers),
	}
	var err error
	if c.Events, err = natsserver.ReadEvents(ctx, r.Broker.JetStream(), natsserver.Subjects); err != nil {
		return c, err
	}
	if slices.Contains(r.opts.Env, "BRIDGE_ALERT_HISTORY=true") {
		c.Grace += timeout // a fix waits for one request for the alert history
	}
	if r.opts.Backfill {
		c.History = map[string][]string{}
	}
	for _, id := range r.API.Sim.IDs() {
		c.Shown[id] = r.answers(id, first)
		if !r.opts.Backfill {
			continue
		}
		if c.History[id], err = r.history(ctx, id); err != nil {
			return c, err
		}
	}
	return c, nil
}

// Lives returns every run of every bridge. [judge.Answer.Life] is an index of it.
func (r *Rig) Lives() []timeline.Life {
	all, _ := r.lives()
	return all
}

// Answers returns the API's answers with a location of a device, in their order. Their
// lives are indexes of [Rig.Lives] until a bridge starts again.
func (r *Rig) Answers(device string) []judge.Answer {
	_, first := r.lives()
	return r.answers(device, first)
}

func (r *Rig) answers(id string, first []int) []judge.Answer {
	var list []judge.Answer
	for _, s := range r.API.Sim.Shown(id) {
		if s.Raw != "" && s.Fault == "" {
			list = append(list, judge.Answer{At: s.At, Life: r.lifeOf(s.Token, first), Raw: s.Raw})
		}
	}
	return list
}

// lifeOf returns the index of the life that used a token, or -1 if there is none.
func (r *Rig) lifeOf(token int64, first []int) int {
	bridge, life, ok := r.API.Holder(token)
	if !ok || bridge >= len(first) {
		return -1
	}
	return first[bridge] + life
}

// Report judges the run after [Rig.Settle].
func (r *Rig) Report(ctx context.Context, name string, p Plan) (judge.Report, error) {
	c, err := r.Case(ctx)
	if err != nil {
		return judge.Report{}, err
	}
	report := judge.Outbound(c)
	bridges := r.Bridges()
	report.Name, report.Seed, report.For, report.Faults, report.Bridges = name, r.opts.Seed, time.Since(r.start), p.Counts(), len(bridges)
	for _, l := range c.Lives {
		report.AddLife(bridges[l.Bridge].Name(), l)
	}
	report.AddRequests(r.API.Requests(), r.opts.Limit)
	if r.producer != nil {
		in, err := r.inboundCase(ctx, r.accepted)
		if err != nil {
			return report, err
		}
		report.AddInbound(in)
	}
	for _, b := range bridges {
		log, err := b.Log()
		if errors.Is(err, fs.ErrNotExist) && len(b.Lives()) == 0 {
			continue // never started
		}
		if err != nil {
			return report, err
		}
		report.Problems = append(report.Problems, complaints(log)...)
	}
	return report, nil
}

// history asks the simulator for all locations that it keeps of a device.
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

// ask sends a request to the simulator.
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
