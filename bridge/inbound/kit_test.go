package inbound

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/inbound/lane"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

func TestMain(m *testing.M) { natstest.Main(m) }

const subjects publisher.Subjects = "plaspy"

// accepted is one post that the API took.
type accepted struct {
	device, key string
	body        string
}

// fakeAPI is the API by script: answer decides each try.
type fakeAPI struct {
	answer func(device string, try int, body []byte) error
	delay  time.Duration

	mu      sync.Mutex
	took    []accepted
	tries   int
	active  map[string]int
	at      int // posts under way
	most    int
	overlap string
	changed chan struct{}
}

func newFakeAPI(answer func(device string, try int, body []byte) error) *fakeAPI {
	return &fakeAPI{answer: answer, active: map[string]int{}, changed: make(chan struct{})}
}

func (a *fakeAPI) Locations(ctx context.Context, id string, body []byte, o plaspy.PostOptions) (plaspy.Answer, error) {
	return a.post(ctx, id, body, o)
}

func (a *fakeAPI) Alerts(ctx context.Context, id string, body []byte, o plaspy.PostOptions) (plaspy.Answer, error) {
	return a.post(ctx, id, body, o)
}

func (a *fakeAPI) post(ctx context.Context, id string, body []byte, o plaspy.PostOptions) (plaspy.Answer, error) {
	if o.Before != nil {
		if err := o.Before(); err != nil {
			return plaspy.Answer{}, err
		}
	}
	a.mu.Lock()
	a.tries++
	try := a.tries
	a.active[id]++
	if a.active[id] > 1 {
		a.overlap = id
	}
	a.at++
	a.most = max(a.most, a.at)
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		a.active[id]--
		a.at--
		a.mu.Unlock()
	}()
	if a.delay > 0 && !sleep(ctx, a.delay) {
		return plaspy.Answer{}, context.Cause(ctx)
	}
	if a.answer != nil {
		if err := a.answer(id, try, body); err != nil {
			return plaspy.Answer{}, err
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.took = append(a.took, accepted{id, o.IdempotencyKey, string(body)})
	close(a.changed)
	a.changed = make(chan struct{})
	return plaspy.Answer{Status: 200, Body: []byte(`{"success":true}`)}, nil
}

func (a *fakeAPI) accepted() []accepted {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]accepted(nil), a.took...)
}

func (a *fakeAPI) waitFor(t testing.TB, what string, enough func([]accepted) bool) {
	t.Helper()
	deadline := time.After(4 * time.Minute)
	for {
		a.mu.Lock()
		ok, changed, n := enough(a.took), a.changed, len(a.took)
		a.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("no %s; %d posts were taken", what, n)
		}
	}
}

func status(code int) error {
	return &plaspy.Error{Endpoint: "locations", Status: code, Message: "scripted", Excerpt: fmt.Sprintf(`{"error":"scripted %d"}`, code)}
}

// rig is a server with the bridge's streams and the consumers of a test.
type rig struct {
	t   testing.TB
	srv *natstest.Server
	nc  *nats.Conn
	js  jetstream.JetStream
}

func newRig(t testing.TB, set ...func(*server.Options)) *rig {
	t.Helper()
	srv := natstest.Start(t, set...)
	nc := srv.Client(t)
	js := natstest.JetStream(t, nc)
	r := &rig{t, srv, nc, js}
	if _, err := publisher.EnsureStreams(t.Context(), js, subjects.Streams(publisher.StreamOptions{Inbound: true})); err != nil {
		t.Fatal(err)
	}
	return r
}

// inbound is the inbound stream, with its present settings.
func (r *rig) inbound() jetstream.Stream {
	r.t.Helper()
	st, err := r.js.Stream(r.t.Context(), subjects.Inbound())
	if err != nil {
		r.t.Fatal(err)
	}
	return st
}

// consumer makes a consumer on a connection of its own.
func (r *rig) consumer(api Poster, set ...func(*Consumer)) *Consumer {
	r.t.Helper()
	js, err := jetstream.New(r.srv.Client(r.t))
	if err != nil {
		r.t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	c, err := New(Options{
		JetStream: js, Subjects: subjects, API: api, Log: log,
		Circuit: plaspy.NewCircuit(plaspy.CircuitOptions{Name: "posts", Log: log}),
		Workers: 8, BackoffInitial: 10 * time.Millisecond, BackoffMax: 100 * time.Millisecond, Grace: time.Minute,
		Source: func(id string) string { return "https://api.example/api/devices/" + id },
	})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range set {
		before := c.lanes
		if f(c); c.lanes == before {
			c.lanes = lane.New(c.opt.limits())
		}
	}
	return c
}

// run runs a consumer until the function it returns is called, or the test ends.
func run(t testing.TB, c *Consumer) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Run(ctx)
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(stop)
	return stop
}

func location(n int) []byte {
	return fmt.Appendf(nil, `{"dateTime":"2026-01-02T03:04:01Z","latitude":4.7,"longitude":-74.1,"n":%d}`, n)
}

func (r *rig) put(subject string, body []byte, header ...string) uint64 {
	r.t.Helper()
	m := nats.NewMsg(subject)
	m.Data = body
	for i := 0; i < len(header); i += 2 {
		m.Header[header[i]] = append(m.Header[header[i]], header[i+1])
	}
	ack, err := r.js.PublishMsg(r.t.Context(), m)
	if err != nil {
		r.t.Fatal(err)
	}
	return ack.Sequence
}

// putMany publishes n numbered locations; device returns the device of each.
func (r *rig) putMany(n int, device func(i int) string) {
	r.t.Helper()
	for i := range n {
		if _, err := r.js.PublishMsgAsync(&nats.Msg{Subject: subjects.InLocation(device(i)), Data: location(i)}); err != nil {
			r.t.Fatal(err)
		}
		if i%2000 == 1999 {
			<-r.js.PublishAsyncComplete()
		}
	}
	<-r.js.PublishAsyncComplete()
}

// messages waits until a stream holds n messages and returns them.
func (r *rig) messages(stream string, n int) []*jetstream.RawStreamMsg {
	r.t.Helper()
	r.waitCount(stream, n)
	st, err := r.js.Stream(r.t.Context(), stream)
	if err != nil {
		r.t.Fatal(err)
	}
	var list []*jetstream.RawStreamMsg
	for seq := st.CachedInfo().State.FirstSeq; seq <= st.CachedInfo().State.LastSeq; seq++ {
		m, err := st.GetMsg(r.t.Context(), seq)
		if err != nil {
			continue
		}
		list = append(list, m)
	}
	return list
}

func (r *rig) count(stream string) int {
	r.t.Helper()
	st, err := r.js.Stream(r.t.Context(), stream)
	if err != nil {
		r.t.Fatal(err)
	}
	return int(st.CachedInfo().State.Msgs)
}

// waitCount asks the server again and again: it has no event for a message that
// leaves a stream.
func (r *rig) waitCount(stream string, n int) {
	r.t.Helper()
	natstest.Eventually(r.t, fmt.Sprintf("%s holds %d messages", stream, n), func() bool { return r.count(stream) == n })
}

// number returns the number in a message of putMany.
func number(t testing.TB, body string) int {
	t.Helper()
	var b struct {
		Location struct {
			N int `json:"n"`
		} `json:"location"`
	}
	if err := json.Unmarshal([]byte(body), &b); err != nil {
		t.Fatal(err)
	}
	return b.Location.N
}

// checkOrder wants each device's posts in rising order, each at least once, and
// returns how many came again. A repetition may only be of the message just
// posted.
func checkOrder(t testing.TB, took []accepted, want int) (again int) {
	t.Helper()
	last, seen := map[string]int{}, map[int]bool{}
	for _, p := range took {
		n := number(t, p.body)
		before, ok := last[p.device]
		switch {
		case ok && n == before:
			again++
		case ok && n < before:
			t.Errorf("device %s: %d posted after %d", p.device, n, before)
		}
		last[p.device] = n
		seen[n] = true
	}
	if len(seen) != want {
		t.Errorf("%d different messages posted, want %d", len(seen), want)
	}
	return again
}

func (a *fakeAPI) checkOverlap(t testing.TB) {
	const workers = 8 // of the rig
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.overlap != "" {
		t.Errorf("two posts at once for device %s", a.overlap)
	}
	if a.most > workers {
		t.Errorf("%d posts at once, want at most %d", a.most, workers)
	}
}

func device(i int) string { return fmt.Sprintf("dev%d", i) }
