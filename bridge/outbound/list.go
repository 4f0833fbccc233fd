package outbound

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v4"

	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/plaspy/rawjson"
	"plaspy-bridge/publisher"
)

// Selection chooses the devices to poll. A pattern is an id or a glob (*, ?,
// [a-z]), which matches any id, also one with slashes.
type Selection struct {
	Devices []string // any of these; empty: all
	Exclude []string // none of these
	Groups  []string // ids or names: in any of these groups; empty: all
}

// ListState tells how the last reading of the device list went.
type ListState struct {
	Read    bool      // a list was read since the start
	At      time.Time // when
	Devices int       // chosen to be polled
	Err     string    // why the last reading failed, or ""
}

// Listed tells how the last reading of the device list went.
func (p *Pool) Listed() ListState { return *p.listed.Load() }

// Owned tells how many devices this replica polls.
func (p *Pool) Owned() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.byID)
}

// keepList reads the device list at start and once every refresh, and on
// failure again after a growing wait.
func (p *Pool) keepList(ctx, work context.Context) {
	retry := backoff.NewExponentialBackOff(backoff.WithInitialInterval(p.opts.BackoffInitial),
		backoff.WithMaxInterval(min(p.opts.BackoffMax, p.opts.Refresh)), backoff.WithMaxElapsedTime(0))
	timer := time.NewTimer(0)
	defer timer.Stop()
	failures := 0
	var last *lastList
	var due time.Time // of the next reading; what comes before is about the last one
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-p.retell:
		case <-p.relist:
			due = time.Time{}
		}
		if p.stale() { // what the stream has seen decides what is new
			timer.Reset(50 * time.Millisecond)
			continue
		}
		// An empty list is not gone through again: that would confirm it.
		if last != nil && !last.empty() && time.Now().Before(due) {
			told, span := p.opts.Trace.List(work)
			p.apply(told, last)
			span.End("")
			timer.Reset(time.Until(due))
			continue
		}
		list, err := p.list(ctx, work)
		if ctx.Err() != nil {
			return
		}
		state := p.Listed()
		if err != nil {
			if text := err.Error(); text != state.Err {
				p.log.Warn("device list not read, trying again", "err", err)
				state.Err = text
				p.listed.Store(&state)
			}
			failures++
			wait := retry.NextBackOff()
			if e, ok := asAPIError(err); ok {
				wait = max(wait, e.RetryAfter)
			}
			due = time.Now().Add(wait)
			timer.Reset(wait)
			continue
		}
		last = list
		if failures > 0 {
			p.log.Info("device list read again", "count", failures)
			failures = 0
			retry.Reset()
		}
		due = time.Now().Add(p.opts.Refresh)
		timer.Reset(p.opts.Refresh)
	}
}

// list reads the device list once and acts on it.
func (p *Pool) list(ctx, work context.Context) (l *lastList, err error) {
	ctx, span := p.opts.Trace.List(ctx)
	defer func() { endList(span, err) }()
	devices, skipped, err := p.api.Devices(ctx)
	if err != nil {
		return nil, fmt.Errorf("read device list: %w", err)
	}
	p.skipped(skipped)
	var grouped map[string]bool
	if len(p.opts.Select.Groups) > 0 {
		groups, _, err := p.api.Groups(ctx)
		if err != nil {
			return nil, fmt.Errorf("read groups: %w", err)
		}
		grouped = p.members(groups)
	}
	l = &lastList{devices: devices, grouped: grouped}
	chosen := p.apply(span.In(work), l)
	if state := p.Listed(); !state.Read || state.Devices != chosen {
		p.log.Info("device list read", "devices", chosen, "listed", len(devices))
	}
	p.listed.Store(&ListState{Read: true, At: time.Now(), Devices: chosen})
	return l, nil
}

// lastList is what the API last said of the account.
type lastList struct {
	devices []plaspy.Device
	grouped map[string]bool // the devices of the chosen groups; nil: all
}

// empty reports whether there is nobody in it who could be chosen.
func (l *lastList) empty() bool {
	return len(l.devices) == 0 || l.grouped != nil && len(l.grouped) == 0
}

// apply acts on a list; it gives how many devices are chosen.
func (p *Pool) apply(work context.Context, l *lastList) int {
	now := time.Now()
	list := p.choose(now, l.devices)
	news, chosen := p.update(list, l.grouped)
	// A device's addition is on its way before its first location can be.
	for i := range news {
		p.tell(work, &news[i], now)
	}
	p.activateAll(now)
	nudge(p.wake)
	return chosen
}

// skipped logs entries of the list that cannot be read, once.
func (p *Pool) skipped(errs []error) {
	text := ""
	if len(errs) > 0 {
		text = fmt.Sprintf("%d entries, the first: %v", len(errs), errs[0])
	}
	if text != "" && text != p.unreadable {
		p.log.Warn("device list has entries that cannot be read", "err", text)
	}
	p.unreadable = text
}

// listedDevice is a device of the list with its token.
type listedDevice struct {
	plaspy.Device
	token string
}

// choose gives the devices that count as in the account: the first of each id,
// not expired, with an id that can be a subject. What is left out is logged
// once.
func (p *Pool) choose(now time.Time, devices []plaspy.Device) map[string]listedDevice {
	list := make(map[string]listedDevice, len(devices))
	left := make(map[string]string)
	for _, d := range devices {
		token, err := publisher.Token(d.ID)
		switch {
		case err != nil:
			left[d.ID] = err.Error()
		case !d.Expires.IsZero() && !d.Expires.After(now):
			left[d.ID] = "it has expired"
		case list[token].token != "":
			left[d.ID] = "the list has it more than once, the first entry counts"
		default:
			list[token] = listedDevice{d, token}
		}
	}
	for id, why := range left {
		if p.leftOut[id] != why {
			p.log.Warn("device of the list left out", "device_id", id, "reason", why)
		}
	}
	p.leftOut = left
	return list
}

// members gives the ids of the devices in the chosen groups.
func (p *Pool) members(groups []plaspy.Group) map[string]bool {
	ids := make(map[string]bool)
	found := make(map[string]bool)
	for _, g := range groups {
		for _, want := range p.opts.Select.Groups {
			if g.ID == want || g.Name == want {
				found[want] = true
				for _, id := range g.Devices {
					ids[id] = true
				}
			}
		}
	}
	for _, want := range p.opts.Select.Groups {
		if !found[want] && !p.noGroup[want] {
			p.log.Warn("no such group", "group", want)
			p.noGroup[want] = true
		}
	}
	return ids
}

func (s *Selection) matches(id string) bool {
	return (len(s.Devices) == 0 || matchesAny(s.Devices, id)) && !matchesAny(s.Exclude, id)
}

func matchesAny(patterns []string, id string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		if pattern == id {
			return true
		}
		// A slash is nothing special in an id.
		ok, err := path.Match(strings.ReplaceAll(pattern, "/", "\x00"), strings.ReplaceAll(id, "/", "\x00"))
		return err == nil && ok
	})
}

// news is a device event to publish.
type news struct {
	d      *device
	change string
	raw    json.RawMessage // nil: as the stream has it
	hash   uint64
	seq    uint64
}

// update takes a list as the devices there are, and gives what is to be told of
// it and how many devices are chosen. A list that is suddenly empty removes
// nobody until the next one says the same.
func (p *Pool) update(list map[string]listedDevice, grouped map[string]bool) ([]news, int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	// Groups that are suddenly empty say no more than a list that is.
	empty := len(list) == 0 && p.anyKnown() || grouped != nil && len(grouped) == 0 && p.Listed().Devices > 0
	if empty && !p.emptyList {
		p.emptyList = true
		p.log.Warn("device list is empty, nobody is removed unless the next one is empty too")
		return nil, p.Listed().Devices
	}
	p.emptyList = empty
	var told []news
	chosen := 0
	for token, l := range list {
		d := p.devices[token]
		if d == nil {
			d = p.newDevice(l.ID, token)
		}
		if d.name != l.Name {
			d.name = l.Name
			p.touch(d)
		}
		d.listed = p.opts.Select.matches(d.id) && (grouped == nil || grouped[d.id])
		if d.listed {
			chosen++
			if n, ok := d.changed(l.Raw); ok && p.owned(d) {
				d.eventBusy = true
				told = append(told, n)
			}
		}
	}
	for token, d := range p.devices {
		if _, there := list[token]; there {
			continue
		}
		d.listed = false
		// One whose events aged out of the stream is known by its location.
		known := d.known() || d.met && d.eventChange == ""
		if known && !d.eventBusy && p.owned(d) && p.opts.Select.matches(d.id) {
			d.eventBusy = true
			told = append(told, news{d: d, change: publisher.Removed, seq: d.eventSeq})
		}
	}
	return told, chosen
}

// activateAll puts the devices into the schedule that were listed, by their
// ids, so that their first polls come in the same order each time.
func (p *Pool) activateAll(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	order := make([]*device, 0, len(p.devices))
	for _, d := range p.devices {
		order = append(order, d)
	}
	slices.SortFunc(order, func(a, b *device) int { return strings.Compare(a.id, b.id) })
	for _, d := range order {
		p.activate(now, d)
	}
	p.circuit.SetDevices(len(p.byID))
}

// known reports whether the stream says that the device is in the account.
func (d *device) known() bool {
	return d.eventChange == publisher.Added || d.eventChange == publisher.Changed
}

// anyKnown runs under the mutex.
func (p *Pool) anyKnown() bool {
	for _, d := range p.devices {
		if d.listed || d.known() {
			return true
		}
	}
	return false
}

// changed tells whether the list's entry of a device is news.
func (d *device) changed(raw json.RawMessage) (news, bool) {
	hash, err := rawjson.Hash(raw, nil)
	if err != nil || d.eventBusy {
		return news{}, false
	}
	n := news{d: d, change: publisher.Added, raw: raw, hash: hash, seq: d.eventSeq}
	switch {
	case d.eventChange == "" && d.met:
		// Its event aged out of the stream, but it is no stranger.
		d.eventChange, d.eventHash = publisher.Added, hash
		return news{}, false
	case d.known() && d.eventHash == hash:
		return news{}, false
	case d.known():
		n.change = publisher.Changed
	}
	return n, true
}

// tell publishes a device event. One that is refused is told again with the
// next list, if it still is news.
func (p *Pool) tell(ctx context.Context, n *news, now time.Time) {
	d := n.d
	if n.raw == nil {
		n.raw = p.lastRaw(ctx, d)
	}
	e := p.subjects.DeviceEvent(&publisher.Device{
		DeviceID: d.id, Token: d.token, Source: p.api.DeviceURL(d.id), Change: n.change, Raw: n.raw, Hash: n.hash, ObservedAt: now,
	}, n.seq)
	span := p.beginDevice(ctx, e)
	done := func(err error) {
		p.endDevice(span, e, err)
		p.mu.Lock()
		defer p.mu.Unlock()
		d.eventBusy = false
		if err == nil {
			d.eventSeq, d.eventHash, d.eventChange = e.Seq, n.hash, n.change
			return
		}
		p.metrics.conflicts.Inc()
		p.Resync() // somebody else told it, or the stream is another one
	}
	if err := p.stream.Publish(ctx, []*publisher.Event{e}, done); err != nil {
		p.endDevice(span, e, err)
		p.mu.Lock()
		d.eventBusy = false
		p.mu.Unlock()
	}
}

// lastRaw is what the stream last said of a device that is gone.
func (p *Pool) lastRaw(ctx context.Context, d *device) json.RawMessage {
	if s, err := p.stream.Last(ctx, p.subjects.Device(d.token)); err == nil && s != nil {
		var body publisher.DeviceBody
		if json.Unmarshal(s.Body, &body) == nil && len(body.Device) > 0 {
			return body.Device
		}
	}
	id, err := json.Marshal(map[string]string{"id": d.id})
	if err != nil { // cannot happen: a string marshals
		return json.RawMessage("{}")
	}
	return id
}
