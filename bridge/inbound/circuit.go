package inbound

import (
	"context"
	"time"

	"plaspy-bridge/bridge/inbound/message"
	"plaspy-bridge/bridge/plaspy"
)

// Circuit says when the API is down, and lets single tries through meanwhile.
// It is used concurrently. [plaspy.Circuit] is the real one.
type Circuit interface {
	Allow(now time.Time) (ok bool, at time.Time)
	Report(device string, err error)
	State() plaspy.CircuitState
}

// gateLook is how often parked lanes are looked at for messages that grew too
// old meanwhile.
const gateLook = time.Second

// park puts a lane aside until the circuit lets it try.
func (d *desk) park(l *lane) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l.state = laneParked
	d.parked = append(d.parked, l)
	d.signal(d.gate)
}

// report tells the circuit how a try ended. When the API is back, everybody who
// waited for that goes on.
func (d *desk) report(a message.Address, err error) {
	c := d.c.opt.Circuit
	was := c.State().Open
	c.Report(a.Token, err)
	if !was || c.State().Open {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range d.lanes {
		if l.state == laneWaiting && l.wait == causeOutage {
			if l.trial != nil {
				l.trial.clocks[causeOutage] = nil
			}
			d.wake(l)
		}
	}
	d.signal(d.gate)
}

// keepGate lets parked lanes through: all of them once the circuit is closed,
// one for each probe that it allows before that.
func (d *desk) keepGate(ctx context.Context) {
	for {
		wait := time.Duration(-1)
		if d.anyParked() {
			ok, at := d.c.opt.Circuit.Allow(time.Now())
			if ok {
				d.unpark()
				continue
			}
			wait = min(time.Until(at), gateLook)
		}
		var timer <-chan time.Time
		if wait >= 0 {
			timer = time.After(wait)
		}
		select {
		case <-d.gate:
		case <-timer:
			d.expire()
		case <-ctx.Done():
			return
		}
	}
}

func (d *desk) anyParked() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.parked) > 0
}

// unpark lets the lane that waited longest try.
func (d *desk) unpark() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.parked) == 0 {
		return
	}
	l := d.parked[0]
	d.parked[0] = nil
	d.parked = d.parked[1:]
	l.pass = true
	if !d.c.opt.Circuit.State().Open {
		d.enqueue(l)
		return
	}
	// A probe goes in front of those who would first have to ask.
	l.state = laneReady
	d.queue = append([]*lane{l}, d.queue...)
	d.signal(d.ready)
}

// expire takes lanes out of the park whose message has become too old: the age
// runs during an outage, too.
func (d *desk) expire() {
	d.mu.Lock()
	defer d.mu.Unlock()
	kept := d.parked[:0]
	for _, l := range d.parked {
		if m := l.head(); m != nil && time.Since(m.At) >= d.c.opt.MaxAge {
			d.enqueue(l)
			continue
		}
		kept = append(kept, l)
	}
	clear(d.parked[len(kept):])
	d.parked = kept
	if d.runnable() < 2*d.c.opt.Workers {
		d.signal(d.hungry)
	}
}
