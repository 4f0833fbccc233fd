package inbound

import (
	"context"
	"errors"
	"fmt"
	"time"

	"plaspy-bridge/bridge/inbound/lane"
)

// Times between two looks at a stream that has nothing new.
const (
	shortestLook = 5 * time.Millisecond
	longestLook  = 100 * time.Millisecond
	retryRead    = 500 * time.Millisecond // after a read that failed
	checkEvery   = time.Second            // that the lanes know every message
)

// reader hands the messages of the stream to the lanes, in order. It is used by
// one goroutine.
type reader struct {
	*pass
	next uint64 // the first sequence that was not read
	last uint64 // of the stream, when it was last looked at
	idle time.Duration

	checked time.Time // when the number of messages was last compared
	missed  int       // how often in a row the stream held more than the lanes know
}

// read reads as far as the lanes want messages, until ctx is cancelled or the
// stream is another one.
func (r *pass) read(ctx context.Context) error {
	d := &reader{pass: r, next: 1, idle: shortestLook}
	for ctx.Err() == nil {
		r.c.beats()
		err := d.step(ctx)
		switch {
		case err == nil:
		case errors.Is(err, errAgain), errors.Is(err, errIndirect):
			return err
		case ctx.Err() == nil:
			if r.c.trouble.set(partStream, err) {
				r.c.log.Warn("inbound stream could not be read, trying again", "err", err, "stream", r.queue.name, "delay", retryRead)
			}
			sleep(ctx, retryRead)
		}
	}
	return context.Cause(ctx)
}

// step reads once, or waits for something to read.
func (d *reader) step(ctx context.Context) error {
	if !d.appetite() {
		select {
		case <-d.wants:
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
		return nil
	}
	if d.next > d.last {
		st, err := d.queue.look(ctx)
		if err != nil {
			return err
		}
		if st.last+1 < d.next {
			return fmt.Errorf("%w: it lost messages that it had accepted", errAgain)
		}
		d.c.trouble.clear(partStream)
		d.last = st.last
		if d.next > d.last {
			if err := d.caughtUp(st); err != nil {
				return err
			}
			sleep(ctx, d.idle)
			d.idle = min(2*d.idle, longestLook)
			return nil
		}
	}
	items, through, err := d.queue.scan(ctx, d.next, d.last)
	if err != nil {
		return err
	}
	d.c.trouble.clear(partStream)
	d.do(func(l *lane.Lanes) {
		for _, m := range items {
			l.Deliver(messageOf(m))
		}
	})
	d.next, d.idle = through+1, shortestLook
	return nil
}

func (d *reader) appetite() bool {
	d.c.mu.Lock()
	defer d.c.mu.Unlock()
	return d.c.lanes.Appetite()
}

// caughtUp is called when everything was read. A stream that then goes on holding
// more messages than the lanes know was changed behind their back: a server that
// died may use the sequences of lost messages again.
func (d *reader) caughtUp(st state) error {
	if time.Since(d.checked) < checkEvery {
		return nil
	}
	d.checked = time.Now()
	known := 0
	d.do(func(l *lane.Lanes) {
		l.CaughtUp()
		known = l.Known()
	})
	if st.messages <= uint64(known) {
		d.missed = 0
		return nil
	}
	if d.missed++; d.missed > 2 {
		return fmt.Errorf("%w: it holds %d messages, and %d are known", errAgain, st.messages, known)
	}
	return nil
}
