package inbound

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/inbound/message"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

// seats is a posting seat that the test gives and takes.
type seats struct {
	mu     sync.Mutex
	given  chan struct{}
	cancel context.CancelFunc
	lost   atomic.Bool // not noticed yet, as in a process that was suspended
}

func newSeats() *seats { return &seats{given: make(chan struct{}, 8)} }

func (s *seats) AwaitPosts(ctx context.Context) (context.Context, error) {
	select {
	case <-s.given:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	held, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cancel = cancel
	s.lost.Store(false)
	return held, nil
}

func (s *seats) Posting() bool { return !s.lost.Load() }

func (s *seats) ReleasePosts() {}

func (s *seats) give() { s.given <- struct{}{} }

func (s *seats) take() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cancel()
}

// queued is an API behind a budget that has no room until it is opened.
type queued struct {
	*fakeAPI
	room    chan struct{}
	waiting atomic.Int64
}

func (a *queued) Locations(ctx context.Context, id string, body []byte, o plaspy.PostOptions) (plaspy.Answer, error) {
	a.waiting.Add(1)
	defer a.waiting.Add(-1)
	select {
	case <-a.room:
		return a.post(ctx, id, body, o)
	case <-ctx.Done():
		return plaspy.Answer{}, ctx.Err()
	}
}

// TestStopWhileWaiting: a stop does not wait for posts that wait for the budget.
func TestStopWhileWaiting(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	api := &queued{fakeAPI: newFakeAPI(nil), room: make(chan struct{})}
	r.putMany(8, device)
	c := r.consumer(api, func(c *Consumer) { c.opt.Grace = time.Hour })
	stop := run(t, c)
	natstest.Eventually(t, "all posts wait", func() bool { return api.waiting.Load() == 8 })
	stop() // with an hour's grace, this ends only if nothing is waited for
	if n := len(api.accepted()); n != 0 {
		t.Errorf("%d posts went out", n)
	}
	r.waitCount(subjects.Inbound(), 8)
}

// TestSeatLostWhileWaiting: a post that waited for the budget while the seat was
// lost does not go out, and does not count as a try.
func TestSeatLostWhileWaiting(t *testing.T) {
	r := newRig(t)
	api := &queued{fakeAPI: newFakeAPI(nil), room: make(chan struct{})}
	r.putMany(8, device)
	s := newSeats()
	s.give()
	stop := run(t, r.consumer(api, func(c *Consumer) { c.opt.Seat = s }))
	natstest.Eventually(t, "all posts wait", func() bool { return api.waiting.Load() == 8 })
	s.lost.Store(true)
	close(api.room)
	stop()
	if n := len(api.accepted()); n != 0 {
		t.Errorf("%d posts went out after the seat was lost", n)
	}
	run(t, r.consumer(api.fakeAPI))
	r.waitCount(subjects.Inbound(), 0)
	for _, m := range r.messages(subjects.Results(), 8) {
		if want := `"attempts":1,`; !strings.Contains(string(m.Data), want) {
			t.Errorf("result %s, want %s", m.Data, want)
		}
	}
}

// TestSendGate checks that a request that was sent is not cancelled, one with a refused
// token is, and one that was withheld does not go out.
func TestSendGate(t *testing.T) {
	cancelled := false
	gate := func() *sendGate {
		cancelled = false
		return &sendGate{cancel: func() { cancelled = true }}
	}
	g := gate()
	if err := g.send(true); err != nil {
		t.Fatal(err)
	}
	if g.withhold(); cancelled {
		t.Error("a request that was sent was cancelled")
	}
	if g.refused(); !cancelled || !errors.Is(g.send(true), errWithheld) {
		t.Error("a request whose token was refused goes out again after a stop")
	}
	g = gate()
	if err := g.send(true); err != nil {
		t.Fatal(err)
	}
	g.refused()
	if err := g.send(true); err != nil || cancelled {
		t.Errorf("a replay was withheld: %v", err)
	}
	g = gate()
	if g.withhold(); !cancelled {
		t.Error("a post that waited was not cancelled")
	}
	if err := g.send(true); !errors.Is(err, errWithheld) {
		t.Errorf("a post went out after a stop: %v", err)
	}
	g = gate()
	if err := g.send(false); !errors.Is(err, errWithheld) || !cancelled {
		t.Errorf("without the seat: %v", err)
	}
	if plaspy.Classify(errWithheld) != plaspy.Canceled {
		t.Error("a post that was withheld counts as an outage")
	}
}

// TestOutageOfNATS: posts that are answered while NATS is away are not made again,
// however many messages cannot be recorded with them, and also if the posting seat
// moves meanwhile.
func TestOutageOfNATS(t *testing.T) {
	t.Parallel()
	r := newRig(t, natstest.Listen)
	const good, bad = 8, 200
	for i := range good {
		r.put(subjects.InLocation(device(i)), location(i))
	}
	for i := range bad {
		r.put(subjects.InLocation(fmt.Sprint("bad", i)), []byte("{}"))
	}
	answers := make(chan struct{})
	api := newFakeAPI(func(string, int, []byte) error { <-answers; return nil })
	s := newSeats()
	c := r.consumer(api, func(c *Consumer) {
		js, err := jetstream.New(r.srv.Conn(t).Conn) // as the bridge connects
		if err != nil {
			t.Fatal(err)
		}
		c.opt.JetStream, c.opt.Seat, c.opt.Grace = js, s, time.Second
		c.opt.request, c.opt.recording = time.Second, time.Second // the most that a request waits which is lost with the server
	})
	s.give()
	run(t, c)
	natstest.Eventually(t, "all posts are under way", func() bool {
		api.mu.Lock()
		defer api.mu.Unlock()
		return api.at == good
	})
	r.srv.Kill()
	close(answers)
	api.waitFor(t, "answers", func(took []accepted) bool { return len(took) == good })
	natstest.Eventually(t, "nothing can be recorded", func() bool { return c.Trouble() != "" })
	s.take()
	natstest.Eventually(t, "the seat is given up", func() bool { return !c.Status().Holding })
	r.srv.Restart()
	s.give()
	natstest.Eventually(t, "everything is recorded", func() bool {
		st, err := r.js.Stream(t.Context(), subjects.Inbound())
		return err == nil && st.CachedInfo().State.Msgs == 0
	})
	if n := len(api.accepted()); n != good {
		t.Errorf("%d posts of %d messages after an outage that the process survived", n, good)
	}
}

// streamGone deletes a stream of the bridge, and returns how to make it again.
func (r *rig) streamGone(name string) (mend func()) {
	r.t.Helper()
	if err := r.js.DeleteStream(r.t.Context(), name); err != nil {
		r.t.Fatal(err)
	}
	return func() {
		r.t.Helper()
		if _, err := publisher.EnsureStreams(r.t.Context(), r.js, subjects.Streams(publisher.StreamOptions{Inbound: true})); err != nil {
			r.t.Fatal(err)
		}
	}
}

// TestStopRecords checks that a stop records the outcome of a post that could not be
// recorded before.
func TestStopRecords(t *testing.T) {
	r := newRig(t)
	mend := r.streamGone(subjects.Results())
	r.put(subjects.InLocation("dev1"), location(1))
	api := newFakeAPI(nil)
	c := r.consumer(api, func(c *Consumer) { c.opt.Grace = time.Minute })
	stop := run(t, c)
	natstest.Eventually(t, "trouble", func() bool { return c.Trouble() != "" })
	mend()
	stop()
	if in, results := r.count(subjects.Inbound()), r.count(subjects.Results()); in != 0 || results != 1 {
		t.Errorf("after a graceful stop: %d messages, %d results", in, results)
	}
}

// TestTroubleEndsWithTheSeat: a replica that no longer posts has no trouble.
func TestTroubleEndsWithTheSeat(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.streamGone(subjects.Results())
	r.put(subjects.InLocation("dev1"), location(1))
	s := newSeats()
	c := r.consumer(newFakeAPI(nil), func(c *Consumer) { c.opt.Seat, c.opt.Grace = s, 100*time.Millisecond })
	s.give()
	run(t, c)
	natstest.Eventually(t, "trouble", func() bool { return c.Trouble() != "" })
	s.take()
	natstest.Eventually(t, "no trouble", func() bool { return !c.Status().Holding && c.Trouble() == "" })
}

// TestUnstorableLetters checks that if dead letters cannot be stored only their own
// devices wait, however many, and that refused messages are not posted again.
func TestUnstorableLetters(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	mend := r.streamGone(subjects.DeadLetters())
	const bad, refused = 700, 40
	for range 4 {
		for i := range bad {
			if _, err := r.js.PublishMsgAsync(&nats.Msg{Subject: subjects.InLocation(fmt.Sprint("bad", i)), Data: []byte("{}")}); err != nil {
				t.Fatal(err)
			}
		}
	}
	<-r.js.PublishAsyncComplete()
	r.putMany(refused, func(i int) string { return fmt.Sprint("refused", i) })
	r.putMany(100, func(i int) string { return device(i % 10) })
	var refusals atomic.Int64
	api := newFakeAPI(func(id string, _ int, _ []byte) error {
		if strings.HasPrefix(id, "refused") {
			refusals.Add(1)
			return status(400)
		}
		return nil
	})
	c := r.consumer(api)
	run(t, c)
	api.waitFor(t, "posts of the healthy devices", func(took []accepted) bool { return len(took) == 100 })
	if s := c.Status(); s.InMemory > maxMessages+3*8 {
		t.Errorf("%d messages in memory", s.InMemory)
	}
	mend()
	r.waitCount(subjects.Inbound(), 0)
	r.waitCount(subjects.DeadLetters(), 4*bad+refused)
	if n := refusals.Load(); n != refused {
		t.Errorf("%d posts of %d messages that the API refused", n, refused)
	}
}

// TestManyFailingDevices: thousands of devices that always fail do not keep a
// healthy device from being found and posted.
func TestManyFailingDevices(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const failing = 5000
	for range 2 {
		r.putMany(failing, func(i int) string { return fmt.Sprint("bad", i) })
	}
	r.putMany(200, func(i int) string { return device(i % 20) })
	api := newFakeAPI(func(id string, _ int, _ []byte) error {
		if strings.HasPrefix(id, "bad") {
			return status(408)
		}
		return nil
	})
	c := r.consumer(api, func(c *Consumer) { c.opt.BackoffInitial, c.opt.BackoffMax = 500*time.Millisecond, time.Minute })
	run(t, c)
	api.waitFor(t, "posts of the healthy devices", func(took []accepted) bool { return len(took) == 200 })
	if s := c.Status(); s.InMemory > maxMessages+3*8 {
		t.Errorf("%d messages in memory", s.InMemory)
	}
}

// TestLargeHeaders checks that headers count with their size in memory.
func TestLargeHeaders(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	large := strings.Repeat("a", 62<<10)
	for i := range 700 {
		r.put(subjects.InLocation(device(i)), location(i), "X", large)
	}
	gate := make(chan struct{})
	api := newFakeAPI(func(string, int, []byte) error { <-gate; return nil })
	c := r.consumer(api, func(c *Consumer) { c.opt.Workers = 400 })
	run(t, c)
	natstest.Eventually(t, "the memory is full", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.lanes.Position() == 700
	})
	c.mu.Lock()
	s := c.lanes.Status()
	c.mu.Unlock()
	if s.InMemory == 0 || s.Bytes < s.InMemory*len(large) {
		t.Errorf("%d messages count as %d bytes", s.InMemory, s.Bytes)
	}
	close(gate)
	r.waitCount(subjects.Inbound(), 0)
}

// list is a device list.
type list struct {
	asked atomic.Int64
	err   error
}

func (l *list) Has(_ context.Context, id string) (bool, error) {
	l.asked.Add(1)
	return id != "gone", l.err
}

// hurried is a circuit to which time passes twenty times as fast since begun, so that a test need not wait
// seconds for each probe.
type hurried struct {
	*plaspy.Circuit
	begun time.Time
}

const hurry = 20

func (h *hurried) Allow(now time.Time) (ok bool, at time.Time) {
	ok, at = h.Circuit.Allow(h.begun.Add(hurry * now.Sub(h.begun)))
	return ok, h.real(at)
}

func (h *hurried) State() plaspy.CircuitState {
	s := h.Circuit.State()
	if s.Open {
		s.NextProbe = h.real(s.NextProbe)
	}
	return s
}

// real is the time at which the circuit's time is at.
func (h *hurried) real(at time.Time) time.Time { return h.begun.Add(at.Sub(h.begun) / hurry) }

// TestForeignAnswers: answers that are not the API's are no verdict, unless the
// API's list confirms that a device is gone.
func TestForeignAnswers(t *testing.T) {
	t.Parallel()
	foreign := func(code int) error {
		return &plaspy.Error{Endpoint: "locations", Status: code, Foreign: true, Message: "scripted", Excerpt: "<html>"}
	}
	r := newRig(t)
	codes := []int{301, 302, 307, 400, 403, 404, 409, 410, 422, 451}
	var well atomic.Bool
	tried := map[string]bool{}
	var mu sync.Mutex
	api := newFakeAPI(func(id string, _ int, _ []byte) error {
		mu.Lock()
		tried[id] = true
		mu.Unlock()
		if well.Load() {
			return nil
		}
		code := 404
		_, _ = fmt.Sscanf(id, "c%d", &code)
		return foreign(code)
	})
	for i, code := range codes {
		r.put(subjects.InLocation(fmt.Sprint("c", code)), location(i))
	}
	r.put(subjects.InLocation("gone"), location(99))
	l := &list{}
	c := r.consumer(api, func(c *Consumer) {
		c.opt.Directory = l
		c.opt.Circuit = &hurried{plaspy.NewCircuit(plaspy.CircuitOptions{Name: "posts", Log: c.log}), time.Now()}
	})
	run(t, c)
	letter := r.messages(subjects.DeadLetters(), 1)[0]
	if letter.Subject != subjects.DeadLetter("location", "gone") || letter.Header.Get(message.HeaderStatus) != "404" {
		t.Errorf("dead letter %s, %v", letter.Subject, letter.Header)
	}
	natstest.Eventually(t, "all are tried", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(tried) == len(codes)+1
	})
	well.Store(true)
	r.waitCount(subjects.Inbound(), 0)
	if n := r.count(subjects.DeadLetters()); n != 1 {
		t.Errorf("%d dead letters", n)
	}
	checkOrder(t, api.accepted(), len(codes))
}
