package inventory

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
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
		if d.change == publisher.Removed {
			v.removals.add(ctx, func() { v.remove(ctx, work, d, now) })
		} else {
			v.send(work, d, now, func(err error) { v.settle(d, err) })
		}
	}
	return reread
}

// send publishes an event; done is called from the publisher's goroutine, or here
// if the publisher has stopped.
func (v *Inventory) send(ctx context.Context, d *due, now time.Time, done func(error)) {
	e := v.opts.Subjects.DeviceEvent(&publisher.Device{
		DeviceID: d.r.id, Token: d.r.token, Source: v.api.DeviceURL(d.r.id), Change: d.change, Raw: d.raw, Hash: d.hash, ObservedAt: now,
	}, d.seq)
	var span trace.Span
	template := v.opts.Subjects.Device("{device}")
	if v.opts.Trace != nil {
		span = v.opts.Trace.Publish(ctx, template, e)
	}
	end := func(err error) {
		if span.On() {
			span.EndPublish(&trace.Message{Subject: e.Subject, Template: template, ID: e.ID}, e.Seq, failure(err))
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
	tooLarge := errors.Is(err, publisher.ErrTooLarge)
	if tooLarge {
		d.r.refused = d.hash
	}
	v.mu.Unlock()
	_, conflict := errors.AsType[*publisher.Conflict](err)
	switch {
	case err == nil, errors.Is(err, publisher.ErrStopped):
	case tooLarge:
		v.log.Warn("device event not published, the stream cannot take it", "device_id", d.r.id, "change", d.change, "err", err)
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
	err, ended := v.wait(ctx, work, d, now)
	if ended && errors.Is(err, publisher.ErrTooLarge) {
		d.raw = bareDevice(d.r.id)
		err, ended = v.wait(ctx, work, d, now)
	}
	if ended {
		v.settle(d, err)
	}
}

// wait publishes an event and waits until that has ended, or ctx has.
func (v *Inventory) wait(ctx, work context.Context, d *due, now time.Time) (err error, ended bool) {
	done := make(chan error, 1)
	v.send(work, d, now, func(err error) { done <- err })
	select {
	case err := <-done:
		return err, true
	case <-ctx.Done():
		return nil, false
	}
}

// lastRaw returns the entry of a device as the stream last had it.
func (v *Inventory) lastRaw(ctx context.Context, r *record) json.RawMessage {
	if s, err := v.stream.Last(ctx, v.opts.Subjects.Device(r.token)); err == nil && s != nil {
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

// maxRemovals is how many removals are in work at once.
const maxRemovals = 8

// removals runs removals beside the goroutine that reads the list: thousands of
// them must not hold it up if the broker is slow.
type removals struct {
	mu      sync.Mutex
	queue   []func()
	running int
	wg      sync.WaitGroup
}

func newRemovals() *removals { return &removals{} }

// add queues a removal. It does not block.
func (q *removals) add(ctx context.Context, f func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.queue = append(q.queue, f)
	if q.running < maxRemovals {
		q.running++
		q.wg.Go(func() { q.run(ctx) })
	}
}

// run works off the queue until it is empty or ctx has ended.
func (q *removals) run(ctx context.Context) {
	for {
		q.mu.Lock()
		if len(q.queue) == 0 || ctx.Err() != nil {
			q.running--
			q.mu.Unlock()
			return
		}
		f := q.queue[0]
		q.queue = q.queue[1:]
		q.mu.Unlock()
		f()
	}
}

func (q *removals) wait() { q.wg.Wait() }

func endList(s trace.Span, err error) {
	if err == nil {
		s.End("")
	} else if s.On() {
		s.End(plaspy.Classify(err).String())
	}
}

// failure names the reason why an event is not stored, for its span.
func failure(err error) string {
	_, conflict := errors.AsType[*publisher.Conflict](err)
	switch {
	case err == nil:
		return ""
	case conflict:
		return "conflict"
	case errors.Is(err, publisher.ErrFound):
		return "superseded"
	case errors.Is(err, publisher.ErrTooLarge):
		return "too_large"
	case errors.Is(err, publisher.ErrStopped):
		return "stopped"
	}
	return "error"
}
