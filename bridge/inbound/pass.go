package inbound

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"plaspy-bridge/bridge/inbound/lane"
)

// pass reads the stream from its first message on until it is told to stop, or
// until the stream is another one.
type pass struct {
	c                *Consumer
	queue            *queue
	results, letters *recorder

	work  context.Context // ends when no further post may begin
	posts context.Context // ends when nothing is waited for any more
	stop  context.CancelCauseFunc

	down  atomic.Bool   // the circuit was open when it was last asked
	ready chan struct{} // a worker may find something to do
	wants chan struct{} // the lanes may want more messages
	quiet chan struct{} // an action ended

	timer *time.Timer // wakes a worker; guarded by c.mu
	wakes time.Time   // when it does; guarded by c.mu
}

// consume is one pass.
func (c *Consumer) consume(ctx context.Context) error {
	q, err := openQueue(ctx, c.opt.JetStream, c.opt.Subjects, c.leader.Load())
	if err != nil {
		return err
	}
	results, err := c.newRecorder(q)
	if err != nil {
		return err
	}
	letters, err := c.newRecorder(q)
	if err != nil {
		results.x.close()
		return err
	}
	c.trouble.clear(partStream)
	posts, abort := context.WithCancel(context.WithoutCancel(ctx))
	defer abort()
	work, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	r := &pass{
		c: c, queue: q, results: results, letters: letters,
		work: work, posts: posts, stop: stop,
		ready: make(chan struct{}, c.opt.Workers), wants: make(chan struct{}, 1), quiet: make(chan struct{}, 1),
	}
	r.timer = time.AfterFunc(time.Hour, func() { signal(r.ready) })
	defer r.timer.Stop()
	r.circuit()

	var workers, others sync.WaitGroup
	others.Go(func() { r.results.run(posts) })
	others.Go(func() { r.letters.run(posts) })
	others.Go(func() {
		if err := r.read(work); err != nil {
			stop(err)
		}
	})
	for range c.opt.Workers {
		workers.Go(r.loop)
	}
	<-work.Done()
	r.finish()
	abort()
	workers.Wait()
	close(r.results.batch)
	close(r.letters.batch)
	others.Wait()
	c.mu.Lock()
	c.lanes.Each(func(m *lane.Message) { triesOf(m).endSpan("", "stopped") })
	c.lanes.Reset()
	c.mu.Unlock()
	return context.Cause(work)
}

// finish waits until the posts that were sent are answered and recorded, or the
// grace is over.
func (r *pass) finish() {
	grace := time.NewTimer(r.c.opt.Grace)
	defer grace.Stop()
	r.do(func(l *lane.Lanes) { l.Stop() })
	for {
		quiet := false
		r.do(func(l *lane.Lanes) { quiet = l.Quiet() })
		if quiet {
			return
		}
		select {
		case <-r.quiet:
		case <-grace.C:
			return
		}
	}
}

// do changes the lanes, and has the workers look for new actions.
func (r *pass) do(f func(*lane.Lanes)) {
	c := r.c
	c.mu.Lock()
	f(c.lanes)
	r.armLocked()
	appetite, more := c.lanes.Appetite(), c.lanes.More()
	c.mu.Unlock()
	if more {
		signal(r.ready)
	}
	if appetite {
		signal(r.wants)
	}
}

// armLocked sets the timer for the next lane that wakes. c.mu is held.
func (r *pass) armLocked() {
	at := r.c.lanes.Wake()
	if at.IsZero() || at.Equal(r.wakes) {
		return
	}
	r.wakes = at
	r.timer.Reset(max(time.Until(at), time.Millisecond))
}

// signal wakes one of those that wait on c.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it will look anyway
	}
}

// loop is one worker.
func (r *pass) loop() {
	for r.posts.Err() == nil {
		r.c.mu.Lock()
		a, ok := r.c.lanes.Next(time.Now())
		more := r.c.lanes.More()
		if !ok {
			r.wakes = time.Time{}
			r.armLocked()
		}
		r.c.mu.Unlock()
		if ok {
			if more {
				signal(r.ready)
			}
			r.act(a)
			signal(r.quiet)
			continue
		}
		select {
		case <-r.ready:
		case <-r.posts.Done():
		}
	}
}

func (r *pass) act(a lane.Action) {
	switch a.Kind {
	case lane.Post:
		r.answered(a.Message, r.post(a.Message))
	case lane.GiveUp:
		r.answered(a.Message, r.tooOld(a.Message))
	case lane.Record:
		r.record(a)
	case lane.Read:
		r.load(a)
	}
}

// answered hands the end of a try to the lanes. Another worker may have the message
// as soon as they know.
func (r *pass) answered(m *lane.Message, a lane.Answer) {
	t := triesOf(m)
	seq, device, id, attempts, err := m.Seq, t.device, t.id, t.attempts, t.failure
	warn := err != nil && attempts >= 3 && !t.warned
	t.failure, t.warned = nil, t.warned || warn
	var delay time.Duration
	r.do(func(l *lane.Lanes) {
		delay = l.Answered(time.Now(), m, a)
		if delay > r.c.opt.patience {
			t.endSpan(resultRetried, a.Cause.String())
		}
	})
	if warn {
		r.c.warnings.warn(r.c.log, "could not post an inbound message, retrying", "err", err, "device_id", device, "seq", seq,
			"msg_id", id, "attempt", attempts, "delay", delay)
	}
}

// load reads messages that the lanes left to the stream.
func (r *pass) load(a lane.Action) {
	items, through, err := r.queue.find(r.posts, a.Lane, a.From, a.To, a.Max)
	if err != nil {
		r.c.trouble.set(partStream, err)
	}
	list := make([]*lane.Message, len(items))
	for i, m := range items {
		list[i] = messageOf(m)
	}
	r.do(func(l *lane.Lanes) { l.Loaded(time.Now(), a, list, through, err) })
}

// messageOf is a message as the lanes see it. The device's token is its lane; it
// is empty if the subject names no device.
func messageOf(m *item) *lane.Message {
	return &lane.Message{Seq: m.Seq, At: m.At, Lane: m.Address.Token, Size: m.Size(), Content: m}
}

// circuit brings the state of the circuit to the lanes.
func (r *pass) circuit() {
	st := r.c.opt.Circuit.State()
	if was := r.down.Swap(st.Open); !was && !st.Open {
		return
	}
	r.do(func(l *lane.Lanes) {
		if st.Open {
			l.Down(st.NextProbe)
		} else {
			l.Up()
		}
	})
}

const (
	retryRead  = 500 * time.Millisecond // after a read that failed
	checkEvery = time.Second            // that the lanes know every message
)

// reader hands the messages of the stream to the lanes, in order. It is used by
// one goroutine.
type reader struct {
	*pass
	*arrivals
	next uint64 // the first sequence that was not read
	last uint64 // of the stream, when it was last looked at

	checked time.Time // when the number of messages was last compared
	missed  int       // how often in a row the stream held more than the lanes know
}

// read reads as far as the lanes want messages, until ctx is cancelled or the
// stream is another one.
func (r *pass) read(ctx context.Context) error {
	d := &reader{pass: r, arrivals: newArrivals(r.c.opt.JetStream.Conn(), r.c.opt.Subjects.InboundAll()), next: 1}
	defer d.close()
	for ctx.Err() == nil {
		r.c.beats()
		err := d.step(ctx)
		switch {
		case err == nil:
		case errors.Is(err, errAgain), errors.Is(err, errIndirect):
			return err
		case ctx.Err() == nil:
			if r.c.trouble.set(partStream, err) {
				r.c.log.Warn("could not read the inbound stream, retrying", "err", err, "stream", r.queue.name, "delay", retryRead)
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
			d.await(ctx)
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
	d.found()
	d.next = through + 1
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
		known = l.Status().Known
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
