package outbound

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"plaspy-bridge/bridge/outbound/inventory"
	"plaspy-bridge/bridge/outbound/quota"
	"plaspy-bridge/bridge/outbound/track"
	"plaspy-bridge/publisher"
)

// resync counts the requests to read the state from the stream (asked), and holds the
// number of the request that was carried out last (loaded). While they differ, the
// state is stale and no device is polled.
type resync struct {
	asked, loaded atomic.Uint64
	// doubts counts the requests to read it because the stream may have lost data,
	// or another replica may have published.
	doubts atomic.Uint64
	nudge  chan struct{}

	// Owned by keepState: the last logged reason why silent alerts are not kept.
	forgets string
}

func (r *resync) init() {
	r.nudge = make(chan struct{}, 1)
	r.asked.Store(1)
}

func (r *resync) ask() {
	r.asked.Add(1)
	nudge(r.nudge)
}

func (r *resync) stale() bool { return r.loaded.Load() != r.asked.Load() }

// keepState reads the state whenever it is stale and the broker can be reached,
// from the first assignment on.
func (p *Pool) keepState(ctx context.Context) {
	const retry = 50 * time.Millisecond
	timer := time.NewTimer(0)
	defer timer.Stop()
	var complaint string
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.state.nudge:
		case <-timer.C:
		}
		if !p.state.stale() {
			continue
		}
		if !p.parts.Connected() || !p.parts.Assigned() {
			timer.Reset(retry)
			continue
		}
		asked, start := p.state.asked.Load(), time.Now()
		n, err := p.load(ctx)
		if err != nil {
			timer.Reset(retry)
			if ctx.Err() == nil && err.Error() != complaint {
				complaint = err.Error()
				p.log.Warn("could not read the state from the stream, retrying", "err", err)
			}
			continue
		}
		complaint = ""
		p.state.loaded.Store(asked)
		if p.state.stale() { // asked for again meanwhile
			nudge(p.state.nudge)
		}
		p.log.Info("state read from the stream", "devices", n, "elapsed", time.Since(start).Round(time.Millisecond))
		nudge(p.dispatcher.wake)
	}
}

// image is the content of the stream for one device.
type image struct {
	track.Image

	id    string // "" if the token is not one that the bridge writes
	met   bool   // the stream holds a device event
	event inventory.Event
}

// add adds a message of the stream to an image. It parses the message outside any
// lock.
func (p *Pool) add(im *image, s *publisher.Stored) {
	m := stored(s)
	switch s.Kind {
	case "location":
		if err := im.Location(p.parser, &m); err != nil {
			p.log.Warn("stream has a malformed location", "device_id", s.Device, "seq", s.Seq, "err", err)
		}
	case "alert":
		im.Alert(p.parser, &m, p.opts.AlertHistory)
	case "device":
		im.met, im.event = true, inventory.ReadEvent(s)
	}
}

// stored converts a message of the stream for package track.
func stored(s *publisher.Stored) track.Stored {
	return track.Stored{
		Seq: s.Seq, At: s.At, Alert: s.Alert, Body: s.Body, Announced: s.Header.Get(publisher.HeaderEdges),
		Since: s.Header.Get(publisher.HeaderHistorySince), Newest: s.Header.Get(publisher.HeaderNewest),
	}
}

// load reads what the stream holds of every device and makes it the devices'
// state. A device that is busy is read again before its next poll. It returns the
// number of devices.
func (p *Pool) load(ctx context.Context) (n int, err error) {
	finish := p.memory.recall(ctx)
	defer func() { finish(err == nil) }()
	// An event that is on its way now may be stored after it was read, and its
	// turn be over before the tracks are replaced.
	p.fleet.rereadBusy()
	p.rememberSilent(ctx)
	images := make(map[string]*image)
	alerts := make(map[string]string) // tokens: devices share few, and their text is part of a message
	mark, err := p.parts.State.State(ctx, p.opts.AlertHistory, func(s publisher.Stored) {
		im := images[s.Device]
		if im == nil {
			im = &image{}
			token := strings.Clone(s.Device) // without the rest of its subject
			if id, err := publisher.Decode(token); err == nil {
				im.id = id
			} else {
				p.log.Warn("stream has an unexpected subject", "subject", s.Device, "err", err)
			}
			images[token] = im
		}
		s.Alert = shared(alerts, s.Alert)
		p.add(im, &s)
	})
	if err != nil {
		return 0, err
	}
	quotas, err := p.opts.Quota.Load(ctx)
	if err != nil {
		return 0, err
	}
	p.loadInventory(images, mark)
	return p.fleet.load(images, quotas, p.opts.Quota), nil
}

// shared returns the first text that is equal to this one, of which it keeps a copy.
func shared(texts map[string]string, text string) string {
	if first, found := texts[text]; found {
		return first
	}
	text = strings.Clone(text)
	texts[text] = text
	return text
}

// rememberSilent keeps the silent alerts beyond the retention. The bridge works
// without the permission for that, so an error is only logged.
func (p *Pool) rememberSilent(ctx context.Context) {
	const timeout = 3 * time.Second
	if p.opts.SilentAfter <= 0 || p.parts.RememberSilent == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := p.parts.RememberSilent(ctx)
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != p.state.forgets && text != "" {
		p.log.Warn("could not keep silent alerts beyond BRIDGE_RETENTION", "err", err)
	}
	p.state.forgets = text
}

// loadInventory hands the device events that were read to the inventory.
func (p *Pool) loadInventory(images map[string]*image, mark publisher.Mark) {
	p.inventory.Load(func(yield func(string, inventory.Image) bool) {
		for token, im := range images {
			// If the stream has dropped old messages, a device event that is missing
			// was published once. In a complete stream it never was.
			met := im.met || im.Located() && !mark.Complete()
			if im.id != "" && !yield(token, inventory.Image{ID: im.id, Event: im.event, Met: met}) {
				return
			}
		}
	})
}

// rereadBusy marks the busy devices, and only them, to be read again before their
// next polls.
func (f *fleet) rereadBusy() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range f.devices {
		d.reread = d.busy
	}
}

// chunk is the number of devices that are replaced while the fleet's mutex is
// held.
const chunk = 256

// fresh is the state of one device as read from the stream.
type fresh struct {
	token, id string
	track     track.Track
	quota     quota.Stored
}

// load replaces the tracks of all devices. The mutex is held for a moment at a
// time: no poll begins meanwhile, because the state is stale.
func (f *fleet) load(images map[string]*image, quotas map[string]quota.Stored, limit *quota.Quota) int {
	list := make([]fresh, 0, chunk)
	for token, im := range images {
		if im.id == "" {
			continue
		}
		list = append(list, fresh{token, im.id, im.Track(f.allocator.history), quotas[token]})
		if len(list) == chunk {
			f.replace(list, limit)
			list = list[:0]
		}
	}
	f.replace(list, limit)
	for part := range slices.Chunk(f.unknown(images), chunk) {
		list = list[:0]
		for _, token := range part {
			list = append(list, fresh{token: token, track: track.New(f.allocator.history), quota: quotas[token]})
		}
		f.replace(list, limit)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.devices)
}

// unknown returns the tokens of the devices of which the stream holds nothing.
func (f *fleet) unknown(images map[string]*image) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var tokens []string
	for token := range f.devices {
		if images[token] == nil {
			tokens = append(tokens, token)
		}
	}
	return tokens
}

// replace replaces the tracks of the devices of a list, except busy ones.
func (f *fleet) replace(list []fresh, limit *quota.Quota) {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range list {
		n := &list[i]
		d := f.devices[n.token]
		if d == nil {
			d = f.addLocked(n.id, n.token)
		}
		if d.busy { // it reads its reservation itself when it next writes one
			d.reread = true
			continue
		}
		limit.Adopt(now, d.day, n.quota)
		if d.reread {
			continue
		}
		moved := d.track.Known && d.track.Seq != n.track.Seq
		d.track = n.track
		f.changes.mark(d)
		if moved && d.active && !d.first {
			f.table.policy.Soon(now, d.id)
		}
	}
}

// reread reads the state of one device from the stream.
func (p *Pool) reread(ctx context.Context, d *device) error {
	im := &image{}
	if err := p.parts.State.StateOf(ctx, d.token(), p.opts.AlertHistory, func(s publisher.Stored) { p.add(im, &s) }); err != nil {
		return fmt.Errorf("read the state of a device: %w", err)
	}
	if !im.Located() && d.track.Known {
		mark, err := p.parts.State.Mark(ctx)
		if err != nil {
			return fmt.Errorf("read the state of a device: %w", err)
		}
		lost := d.track.Seq == 0 && d.track.SeenAt.Before(mark.Created) // it aged out of another stream
		if mark.AgedOut(d.track.Seq) && !lost {
			d.track = im.Keep(d.track)
			return nil
		}
	}
	d.track = im.Track(p.opts.AlertHistory)
	return nil
}
