package inbound

import (
	"context"
	"errors"
	"fmt"
	"time"

	"plaspy-bridge/bridge/inbound/message"

	"github.com/nats-io/nats.go/jetstream"
)

// read pulls messages for as long as the workers have use for them.
func (d *desk) read(ctx context.Context) error {
	for ctx.Err() == nil {
		d.c.progress()
		n := d.appetite()
		if n == 0 {
			select {
			case <-d.hungry:
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
			continue
		}
		got, err := d.fetch(ctx, n)
		if err != nil {
			return err
		}
		if got == 0 && ctx.Err() == nil {
			if err := d.lookBeyond(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// appetite is how many messages to pull. While enough lanes are ready, what is
// in the stream is best left there.
func (d *desk) appetite() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.runnable() >= 2*d.c.opt.Workers {
		return 0
	}
	return max(0, min(d.c.limits.fetch, d.c.limits.hand-d.hand))
}

// fetch pulls up to n messages and puts each in its lane.
func (d *desk) fetch(ctx context.Context, n int) (got int, err error) {
	wait := d.c.limits.pull
	if d.blocked() {
		wait = min(wait, time.Second) // devices may be hidden behind a full window
	}
	pull, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	opts := []jetstream.FetchOpt{jetstream.FetchContext(pull)}
	if d.stream.replicated {
		n = min(n, d.c.maxMessages())
	} else {
		opts = append(opts, jetstream.FetchMaxBytes(d.c.maxBytes()))
	}
	if wait >= 2*time.Second {
		opts = append(opts, jetstream.FetchHeartbeat(wait/4))
	}
	batch, err := d.pulls.Fetch(n, opts...)
	if err != nil {
		return 0, fmt.Errorf("pull: %w", err)
	}
	for msg := range batch.Messages() {
		got++
		if err := d.take(ctx, msg); err != nil {
			return got, err
		}
	}
	switch err := batch.Error(); {
	case err == nil, errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		d.c.trouble.clear(partStream)
		return got, nil
	case errors.Is(err, jetstream.ErrNoHeartbeat), errors.Is(err, jetstream.ErrConsumerLeadershipChanged), errors.Is(err, jetstream.ErrServerShutdown):
		// Passing, or the connection's own trouble. If a delivery was lost with
		// it, the next one shows.
		return got, nil
	default:
		return got, fmt.Errorf("pull: %w", err)
	}
}

// blocked reports whether a device has more than it can post now.
func (d *desk) blocked() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.waiting > 0 || d.tails > 0
}

// lookBeyond opens lanes for devices that the consumer cannot show: the server
// keeps account of a bounded number of deliveries, and where a few devices that
// fail have filled that, it delivers no more. The others' lanes then read the
// stream by themselves.
func (d *desk) lookBeyond(ctx context.Context) error {
	if !d.blocked() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	info, err := d.pulls.Info(ctx)
	if err != nil {
		return fmt.Errorf("look at consumer: %w", err)
	}
	if info.NumPending == 0 || info.NumAckPending < d.c.limits.ackPending {
		return nil
	}
	st, err := d.stream.Info(ctx, jetstream.WithSubjectFilter(string(d.c.opt.Subjects)+".in.>"))
	if err != nil {
		return fmt.Errorf("look at stream: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for subject := range st.State.Subjects {
		a := message.AddressOf(d.c.opt.Subjects, subject)
		if d.lanes[a.Lane] != nil {
			continue
		}
		if len(d.lanes) >= d.c.limits.lanes {
			break
		}
		l := d.lane(a)
		l.tail, l.next = true, d.delivered+1
		d.tails++
		d.enqueue(l)
	}
	return nil
}

// keepAlive tells the server that what is in hand is being worked on.
func (d *desk) keepAlive(ctx context.Context) {
	for sleep(ctx, d.c.limits.ackWait/3) {
		for _, msg := range d.deliveries() {
			if err := msg.InProgress(); !errors.Is(err, jetstream.ErrMsgAlreadyAckd) {
				d.c.told("keep alive", err)
			}
		}
	}
}

func (d *desk) deliveries() []jetstream.Msg {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := make([]jetstream.Msg, 0, d.hand)
	for _, l := range d.lanes {
		for _, m := range l.hand {
			if m.delivery != nil {
				list = append(list, m.delivery)
			}
		}
	}
	return list
}
