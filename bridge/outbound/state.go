package outbound

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"plaspy-bridge/bridge/outbound/inventory"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/plaspy/rawjson"
	"plaspy-bridge/publisher"
)

// load reads back what the stream holds of every device and takes it as their
// state. A device that is busy, or whose state is not the one that this process
// believed, is in doubt: it is looked at, or polled, as soon as may be.
func (p *Pool) load(ctx context.Context) error {
	// What is on its way now may be stored after it was read, and be over when
	// the image is taken.
	p.mu.Lock()
	for _, d := range p.devices {
		d.doubtful = d.busy
	}
	p.mu.Unlock()
	images := make(map[string]*image)
	mark, err := p.stream.State(ctx, p.opts.AlertHistory, func(s publisher.Stored) {
		im := images[s.Device]
		if im == nil {
			im = &image{}
			images[s.Device] = im
		}
		im.add(s)
	})
	if err != nil {
		return err
	}
	quotas, err := p.opts.Quota.Load(ctx)
	if err != nil {
		return err
	}
	ids := make(map[string]string, len(images))
	for token := range images {
		id, err := publisher.Decode(token)
		if err != nil {
			p.log.Warn("stream holds a subject that is not the bridge's", "subject", token, "err", err)
			continue
		}
		ids[token] = id
	}
	p.loadInventory(images, ids, mark)
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for token, id := range ids {
		d := p.devices[token]
		if d == nil {
			d = p.newDevice(id, token)
		}
		p.restore(now, d, images[token])
	}
	for token, d := range p.devices {
		if images[token] == nil {
			p.restore(now, d, &image{})
		}
	}
	for token, stored := range quotas {
		// A busy device reads its reservation itself when it next writes one.
		if d := p.devices[token]; d != nil && !d.busy {
			p.opts.Quota.Adopt(now, &d.day, stored)
		}
	}
	return nil
}

// loadInventory hands the device events that were read to the inventory.
func (p *Pool) loadInventory(images map[string]*image, ids map[string]string, mark publisher.Mark) {
	p.inventory.Load(func(yield func(string, inventory.Image) bool) {
		for token, id := range ids {
			im := images[token]
			// If the stream has dropped old messages, a device event that is missing
			// was published once. In a complete stream it never was.
			met := im.device != nil || im.location != nil && !mark.Whole()
			if !yield(token, inventory.Image{ID: id, Event: im.device, Met: met}) {
				return
			}
		}
	})
}

// restore runs under the mutex.
func (p *Pool) restore(now time.Time, d *device, im *image) {
	if d.busy || d.doubtful {
		d.doubtful = true
		return
	}
	seq, have := d.seq, d.have
	p.take(d, im)
	p.touch(d)
	if have && d.seq != seq && d.active {
		p.policy.Soon(now, d.id)
	}
}

// reread takes the state of one device from the stream.
func (p *Pool) reread(ctx context.Context, d *device) error {
	im := &image{}
	if err := p.stream.StateOf(ctx, d.token, p.opts.AlertHistory, func(s publisher.Stored) { im.add(s) }); err != nil {
		return fmt.Errorf("read the state of a device: %w", err)
	}
	if im.location == nil && d.have {
		mark, err := p.stream.Mark(ctx)
		if err != nil {
			return fmt.Errorf("read the state of a device: %w", err)
		}
		if mark.AgedOut(d.seq) { // it aged out, and is what was published last all the same
			d.seq = 0
			im.location = &publisher.Stored{}
		}
	}
	p.take(d, im)
	return nil
}

// image is what the stream holds of one device.
type image struct {
	location *publisher.Stored
	device   *publisher.Stored
	alerts   []publisher.Stored // the newest of each alert
	seen     []alertKey         // what the older ones tell
}

func (im *image) add(s publisher.Stored) {
	switch s.Kind {
	case "location":
		im.location = &s
	case "device":
		im.device = &s
	case "alert":
		im.addAlert(s)
	}
}

// addAlert keeps the newest message of each alert, and of the others what they
// tell was seen.
func (im *image) addAlert(s publisher.Stored) {
	i := slices.IndexFunc(im.alerts, func(a publisher.Stored) bool { return a.Alert == s.Alert })
	if i < 0 {
		im.alerts = append(im.alerts, s)
		return
	}
	older := s
	if s.Seq > im.alerts[i].Seq {
		older, im.alerts[i] = im.alerts[i], s
	}
	if body, at, ok := raisedAt(older); ok {
		im.seen = append(im.seen, alertKey{body.Alert, at.UnixNano()})
	}
}

// raisedAt reads when an alert was raised.
func raisedAt(s publisher.Stored) (body publisher.AlertBody, at time.Time, ok bool) {
	if json.Unmarshal(s.Body, &body) != nil || body.State != publisher.Raised {
		return body, at, false
	}
	at, err := plaspy.ParseTime(body.DateTime)
	return body, at, err == nil
}

// take makes what the stream holds the device's state.
func (p *Pool) take(d *device, im *image) {
	if im.location == nil {
		d.forget()
	} else if im.location.Body != nil {
		if err := p.adopt(d, im.location); err != nil {
			p.log.Warn("stream holds a location that cannot be read", "device_id", d.id, "seq", im.location.Seq, "err", err)
			d.forget()
			d.seq = im.location.Seq
		}
	}
	d.alertSeq = nil
	for _, a := range im.alerts {
		p.takeAlert(d, a)
	}
	for _, k := range im.seen {
		if d.seenAlerts != nil {
			d.seenAlerts[k] = struct{}{}
		}
	}
	if d.historyFrom.IsZero() {
		d.forgetSeen(d.fixTime)
	}
	d.sortOut()
}

// sortOut leaves of the edges that the last location announces those that the
// stream does not hold: the last message of their subject came before it.
func (d *device) sortOut() {
	d.owed = slices.DeleteFunc(d.owed, func(e edge) bool { return d.alertSeq[publisher.Encode(e.alert)] > d.seq })
}

func (p *Pool) takeAlert(d *device, s publisher.Stored) {
	d.setAlertSeq(s.Alert, s.Seq)
	var body publisher.AlertBody
	if err := json.Unmarshal(s.Body, &body); err != nil {
		return // not the bridge's; its sequence is all that counts
	}
	if _, at, ok := raisedAt(s); ok {
		d.saw(body.Alert, at)
	}
	switch {
	case body.Source == publisher.SourceHistory:
	case body.Alert == silentAlert:
		d.silent = body.State == publisher.Raised
	case s.Seq > d.seq && p.ignoresAlerts:
		// Newer than the location: the alerts changed alone.
		d.settleEdge(edge{body.Alert, body.State}, s.Seq)
	}
}

// adopt takes a stored location as the device's last.
func (p *Pool) adopt(d *device, s *publisher.Stored) error {
	var body publisher.LocationBody
	if err := json.Unmarshal(s.Body, &body); err != nil {
		return err
	}
	hash, err := rawjson.Hash(body.Location, p.ignore)
	if err != nil {
		return err
	}
	f, err := parseFix(body.Location, hash)
	if err != nil {
		return err
	}
	d.remember(f, s.Seq)
	d.changedAt = s.At
	d.owed, d.owedFix = splitEdges(s.Header.Get(publisher.HeaderEdges)), f
	for _, a := range f.alerts {
		d.saw(a, f.time)
	}
	d.historyFrom = time.Time{}
	if t, err := time.Parse(time.RFC3339Nano, s.Header.Get(publisher.HeaderHistorySince)); err == nil {
		d.historyFrom = t
	}
	return nil
}
