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

// pass is one reading of the inbound stream, from its first message on until ctx is
// cancelled or the stream is replaced. The lanes decide; c.mu guards them.
type pass struct {
	c                *Consumer
	queue            *queue
	results, letters *recorder

	work  context.Context // cancelled when no further post may begin
	posts context.Context // cancelled when the grace for posts in flight is over

	down  atomic.Bool   // the circuit was open when it was last asked
	ready chan struct{} // a worker may find something to do
	wants chan struct{} // the lanes may want more messages
	ended chan struct{} // an action ended

	timer *time.Timer // wakes a worker; guarded by c.mu
	wakes time.Time   // when it does; guarded by c.mu
}

// consume runs one pass: a reader, two recorders and the workers. It returns the cause
// of the pass's end.
func (c *Consumer) consume(ctx context.Context) error {
	q, err := openQueue(ctx, c.opt.JetStream, c.opt.Subjects, c.leader.Load(), c.opt.request)
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
		work: work, posts: posts,
		ready: make(chan struct{}, c.opt.Workers), wants: make(chan struct{}, 1), ended: make(chan struct{}, 1),
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
	close(r.results.jobs)
	close(r.letters.jobs)
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
		case <-r.ended:
		case <-grace.C:
			return
		}
	}
}

// do calls f with the lanes, then wakes a worker if there are new actions, and the
// reader if the lanes want more messages.
func (r *pass) do(f func(*lane.Lanes)) {
	c := r.c
	c.mu.Lock()
	f(c.lanes)
	r.armLocked()
	wants, ready := c.lanes.WantsMessages(), c.lanes.Ready()
	c.mu.Unlock()
	if ready {
		signal(r.ready)
	}
	if wants {
		signal(r.wants)
	}
}

// armLocked sets the timer for the next lane that wakes.
func (r *pass) armLocked() {
	at := r.c.lanes.Wake()
	if at.IsZero() || at.Equal(r.wakes) {
		return
	}
	r.wakes = at
	r.timer.Reset(max(time.Until(at), time.Millisecond))
}

// signal wakes one goroutine that waits on c.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // a signal is pending
	}
}

// loop is one worker: it carries out the actions of the lanes.
func (r *pass) loop() {
	for r.posts.Err() == nil {
		r.c.mu.Lock()
		a, ok := r.c.lanes.Next(time.Now())
		ready := r.c.lanes.Ready()
		if !ok {
			r.wakes = time.Time{}
			r.armLocked()
		}
		r.c.mu.Unlock()
		if ok {
			if ready {
				signal(r.ready)
			}
			r.act(a)
			signal(r.ended)
			continue
		}
		select {
		case <-r.ready:
		case <-r.posts.Done():
		}
	}
}

// act carries out an action and hands its result to the lanes.
func (r *pass) act(a lane.Action) {
	switch a.Kind {
	case lane.Post:
		r.answered(a.Message, r.post(a.Message))
	case lane.GiveUp:
		r.answered(a.Message, r.tooOld(a.Message))
	case lane.Record:
		r.record(a)
	case lane.Read:
		r.readLane(a)
	}
}

// answered hands the result of a try to the lanes. Afterwards another worker may have
// the message, so the fields for the log are read first.
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

// readLane reads messages of one lane that were left to the stream.
func (r *pass) readLane(a lane.Action) {
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

// messageOf wraps a message for the lanes. Its lane is the device's token, or
// [lane.Odd] if the subject names no device.
func messageOf(m *item) *lane.Message {
	return &lane.Message{Seq: m.Seq, At: m.At, Lane: m.Address.Token, Size: m.Size(), Content: m}
}

// circuit passes the state of the circuit to the lanes.
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
	checkEvery = time.Second            // between two checks that the lanes know every message
)

// reader hands the messages of the stream to the lanes, in order. It is used by
// one goroutine.
type reader struct {
	pass     *pass
	arrivals *arrivals

	next uint64 // the first sequence that was not read
	last uint64 // the stream's last sequence, as of the last look

	checked time.Time // when the number of messages was last compared
	missed  int       // how often in a row the stream held more than the lanes know
}

// read reads the stream as far as the lanes want messages, until ctx is cancelled or
// the stream is replaced.
func (r *pass) read(ctx context.Context) error {
	rd := &reader{pass: r, arrivals: newArrivals(r.c.opt.JetStream.Conn(), r.c.opt.Subjects.InboundAll()), next: 1}
	defer rd.arrivals.close()
	for ctx.Err() == nil {
		r.c.beats()
		err := rd.step(ctx)
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
func (rd *reader) step(ctx context.Context) error {
	if !rd.wantsMessages() {
		select {
		case <-rd.pass.wants:
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
		return nil
	}
	if rd.next > rd.last {
		st, err := rd.pass.queue.look(ctx)
		if err != nil {
			return err
		}
		if st.last+1 < rd.next {
			return rd.pass.queue.again("it lost messages that it had accepted")
		}
		rd.pass.c.trouble.clear(partStream)
		rd.last = st.last
		if rd.next > rd.last {
			if err := rd.caughtUp(st); err != nil {
				return err
			}
			rd.arrivals.await(ctx)
			return nil
		}
	}
	items, through, err := rd.pass.queue.scan(ctx, rd.next, rd.last)
	if err != nil {
		return err
	}
	rd.pass.c.trouble.clear(partStream)
	rd.pass.do(func(l *lane.Lanes) {
		for _, m := range items {
			l.Deliver(messageOf(m))
		}
	})
	rd.arrivals.found()
	rd.next = through + 1
	return nil
}

func (rd *reader) wantsMessages() bool {
	rd.pass.c.mu.Lock()
	defer rd.pass.c.mu.Unlock()
	return rd.pass.c.lanes.WantsMessages()
}

// caughtUp is called when everything was read. If the stream then keeps holding more
// messages than the lanes know, it was changed meanwhile: a server that crashed may use
// the sequences of lost messages again.
func (rd *reader) caughtUp(st state) error {
	if time.Since(rd.checked) < checkEvery {
		return nil
	}
	rd.checked = time.Now()
	known := 0
	rd.pass.do(func(l *lane.Lanes) {
		l.CaughtUp()
		known = l.Status().Known
	})
	if st.messages <= uint64(known) {
		rd.missed = 0
		return nil
	}
	if rd.missed++; rd.missed > 2 {
		return rd.pass.queue.again(fmt.Sprintf("it holds %d messages, and %d are known", st.messages, known))
	}
	return nil
}
