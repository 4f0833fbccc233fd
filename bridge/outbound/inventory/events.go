package inventory

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/trace"
	"plaspy-bridge/publisher"
)

// publish compares the list at hand with the stream and publishes the difference,
// in a trace of its own. It reports whether the list has to be read again for it.
func (v *Inventory) publish(ctx, work context.Context, owns func(string) bool) (reread bool) {
	work, span := v.opts.Trace.List(work)
	defer span.End("")
	return v.announce(ctx, work, owns)
}

// announce publishes the device events that are due of the devices that owns
// claims.
func (v *Inventory) announce(ctx, work context.Context, owns func(string) bool) (reread bool) {
	v.mu.Lock()
	list, reread := v.dir.due(owns)
	v.mu.Unlock()
	now := time.Now()
	for i := range list {
		d := &list[i]
		switch {
		case d.change == removed:
			v.tasks.add(ctx, func() { v.remove(ctx, work, d, now) })
		case d.back && v.opts.Positions != nil:
			v.tasks.add(ctx, func() { v.bringBack(ctx, work, d, now) })
		default:
			v.send(work, d, now, func(err error) { v.settle(d, err) })
		}
	}
	return reread
}

// send publishes an event; done is called from the publisher's goroutine, or here
// if the publisher has stopped.
func (v *Inventory) send(ctx context.Context, d *due, now time.Time, done func(error)) {
	e := v.opts.Subjects.DeviceEvent(&publisher.Device{
		DeviceID: d.r.id, Token: d.r.token(), Source: v.api.DeviceURL(d.r.id), Change: d.change.String(), Raw: d.raw, Hash: d.hash, ObservedAt: now,
	}, d.seq)
	var span trace.Span
	template := v.opts.Subjects.Device("{device}")
	if v.opts.Trace != nil {
		span = v.opts.Trace.Publish(ctx, template, e)
	}
	end := func(err error) {
		if span.On() {
			span.EndPublish(&trace.Message{Subject: e.Subject, Template: template, ID: e.ID}, e.Seq, publisher.Failure(err))
		}
		if err == nil {
			d.seq = e.Seq
		}
		done(err)
	}
	if err := v.stream.Publish(ctx, []*publisher.Event{e}, end); err != nil {
		end(errors.Join(publisher.ErrStopped, err))
	}
}

// settle takes over how the publication of an event ended.
func (v *Inventory) settle(d *due, err error) {
	v.mu.Lock()
	if err == nil {
		d.r.stored(d, d.seq)
	} else {
		d.r.busy = false
	}
	unstorable := errors.Is(err, publisher.ErrUnstorable)
	if unstorable {
		d.r.refused = d.hash
	}
	v.mu.Unlock()
	_, conflict := errors.AsType[*publisher.Conflict](err)
	switch {
	case err == nil, errors.Is(err, publisher.ErrStopped):
	case unstorable:
		v.log.Warn("device event can never be stored", "device_id", d.r.id, "change", d.change.String(), "err", err)
	case conflict:
		// Another replica published it, or the stream is a new one.
		v.opts.Conflict()
		v.fleet.Resync()
	default:
		v.fleet.Resync()
	}
}

// remove publishes that a device has left the account.
func (v *Inventory) remove(ctx, work context.Context, d *due, now time.Time) {
	d.raw = v.lastRaw(ctx, d.r)
	// Before the event: if the process ends between the two, the next start does
	// both again.
	v.dropPosition(ctx, d.r)
	ended, err := v.wait(ctx, work, d, now)
	if ended && errors.Is(err, publisher.ErrUnstorable) {
		d.raw = bareDevice(d.r.id)
		ended, err = v.wait(ctx, work, d, now)
	}
	if ended {
		v.settle(d, err)
	}
}

// bringBack publishes that a removed device is in the account again. The API may
// show the location that it showed before, which is no change, so its key is put
// back here.
func (v *Inventory) bringBack(ctx, work context.Context, d *due, now time.Time) {
	if err := v.opts.Positions.Restore(ctx, d.r.token()); err != nil {
		v.log.Warn("could not restore a device's last position", "device_id", d.r.id, "err", err)
	}
	v.send(work, d, now, func(err error) { v.settle(d, err) })
}

// dropPosition deletes a removed device's key from the bucket of last positions.
func (v *Inventory) dropPosition(ctx context.Context, r *record) {
	if v.opts.Positions == nil {
		return
	}
	if err := v.opts.Positions.Remove(ctx, r.token()); err != nil && ctx.Err() == nil {
		v.log.Warn("could not delete a removed device's last position", "device_id", r.id, "err", err)
	}
}

// sweep deletes the last positions of removed devices once more at the next
// refresh: a poll that was under way may have published one since.
func (v *Inventory) sweep(ctx context.Context, owns func(string) bool) {
	if v.opts.Positions == nil {
		return
	}
	v.mu.Lock()
	removed := v.dir.sweep(owns)
	v.mu.Unlock()
	for _, r := range removed {
		v.tasks.add(ctx, func() { v.dropPosition(ctx, r) })
	}
}

// wait publishes an event and waits until that has ended, or ctx has.
func (v *Inventory) wait(ctx, work context.Context, d *due, now time.Time) (ended bool, err error) {
	done := make(chan error, 1)
	v.send(work, d, now, func(err error) { done <- err })
	select {
	case err := <-done:
		return true, err
	case <-ctx.Done():
		return false, nil
	}
}

// lastRaw returns the entry of a device as the stream last had it.
func (v *Inventory) lastRaw(ctx context.Context, r *record) json.RawMessage {
	if s, err := v.stream.Last(ctx, v.opts.Subjects.Device(r.token())); err == nil && s != nil {
		var body publisher.DeviceBody
		if json.Unmarshal(s.Body, &body) == nil && len(body.Device) > 0 {
			return body.Device
		}
	}
	return bareDevice(r.id)
}

func bareDevice(id string) json.RawMessage {
	raw, err := json.Marshal(map[string]string{"id": id})
	if err != nil { // cannot happen: a string marshals
		return json.RawMessage("{}")
	}
	return raw
}

func endList(s trace.Span, err error) {
	if err == nil {
		s.End("")
	} else if s.On() {
		s.End(plaspy.Classify(err).String())
	}
}
