package outbound

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/outbound/gap"
	"plaspy-bridge/bridge/outbound/inventory"
	"plaspy-bridge/bridge/outbound/schedule"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

const subjects = publisher.Subjects("plaspy")

func TestMain(m *testing.M) { natstest.Main(m) }

var quiet = slog.New(slog.DiscardHandler)

// wholeAPI is all that a pool needs of the API.
type wholeAPI interface {
	API
	inventory.API
	gap.API
}

// parts are those of a pool on an API, on a stream if there is one.
func parts(api wholeAPI, pub *publisher.Publisher, s *schedule.Schedule) Parts {
	p := Parts{
		API: api, Devices: api, Gaps: api, Budget: plaspy.NewBudget(0, quiet, nil),
		Circuit:  plaspy.NewCircuit(plaspy.CircuitOptions{Log: quiet, Max: time.Second}),
		Schedule: s, Subjects: subjects, Log: quiet, Connected: func() bool { return false },
	}
	if pub != nil {
		p.Events, p.State, p.Connected = pub, pub.Reader(), pub.Connected
	}
	return p
}

// share is the ownership of a replica that a test decides on.
type share struct {
	owns   atomic.Pointer[func(token string) bool] // nil: all
	idle   func() bool                             // nil: it is live
	lapsed atomic.Bool                             // another replica may have taken over
	asked  atomic.Int64                            // calls of Lapsed while it is true
}

func (s *share) Owns(token string) bool {
	owns := s.owns.Load()
	return owns == nil || (*owns)(token)
}

func (s *share) Live() bool { return s.idle == nil || !s.idle() }

func (s *share) Lapsed() bool {
	lapsed := s.lapsed.Load()
	if lapsed {
		s.asked.Add(1)
	}
	return lapsed
}

// own assigns other devices to the rig's pool.
func (r *rig) own(f func(token string) bool) (settled <-chan struct{}, revoke func()) {
	r.share.owns.Store(&f)
	return r.pool.Reassign(true)
}

// rig is a pool on a real stream and a fake API.
type rig struct {
	t     testing.TB
	api   *fakeAPI
	srv   *natstest.Server
	pub   *publisher.Publisher
	pool  *Pool
	share share
	stop  func()
}

func options() Options {
	return Options{
		Workers: 8, Refresh: 20 * time.Millisecond, IgnoreFields: []string{"inactiveSeconds"}, BackfillAfter: time.Second,
		BackoffInitial: 5 * time.Millisecond, BackoffMax: 50 * time.Millisecond, Grace: time.Minute,
		gapPatience: 30 * time.Millisecond,
	}
}

// withHistory returns options with the history of alerts.
func withHistory() Options {
	o := options()
	o.AlertHistory = true
	return o
}

const interval = 5 * time.Millisecond

func newRig(t testing.TB, srv *natstest.Server, api *fakeAPI, o Options) *rig {
	t.Helper()
	return newRigOn(t, srv, api, api, o)
}

// firstFix returns a rig whose device d has shown its first fix, with more fields.
func firstFix(t testing.TB, o Options, more ...string) *rig {
	t.Helper()
	api := newFakeAPI("d")
	api.show("d", at(1, "first", more...))
	r := newRig(t, natstest.Start(t), api, o)
	r.until("the first", body("first"))
	return r
}

// newRigOn is newRig with an API that does more than the fake one around which it
// is built.
func newRigOn(t testing.TB, srv *natstest.Server, fake *fakeAPI, api wholeAPI, o Options) *rig {
	t.Helper()
	return newRigWith(t, srv, fake, api, o, func(*rig, *Parts) {})
}

// newRigWith is newRigOn with options that need the publisher.
func newRigWith(t testing.TB, srv *natstest.Server, fake *fakeAPI, api wholeAPI, o Options, with func(*rig, *Parts)) *rig {
	t.Helper()
	r := &rig{t: t, api: fake, srv: srv, pub: srv.Publisher(t, subjects)}
	p := parts(api, r.pub, schedule.NewFixed(interval))
	p.Owner = &r.share
	with(r, &p)
	r.pool = New(o, p)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.pool.Run(ctx)
	}()
	r.stop = sync.OnceFunc(func() {
		cancel()
		<-done
		drain, stop := context.WithTimeout(context.Background(), time.Minute)
		defer stop()
		if err := r.pub.Drain(drain); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

// event is a message of the events stream, in short.
type event struct {
	subject, body string
	header        nats.Header
}

// events reads the stream as it is.
func (r *rig) events() []event {
	r.t.Helper()
	js := natstest.JetStream(r.t, r.srv.Client(r.t))
	st, err := js.Stream(context.Background(), "PLASPY_EVENTS")
	if err != nil {
		r.t.Fatal(err)
	}
	state := st.CachedInfo().State
	var list []event
	for seq := max(state.FirstSeq, 1); seq <= state.LastSeq; seq++ {
		m, err := st.GetMsg(context.Background(), seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue // deleted by the test
		}
		if err != nil {
			r.t.Fatal(err)
		}
		list = append(list, event{m.Subject, string(m.Data), m.Header})
	}
	return list
}

// until follows the stream until it has a message that ok accepts, and gives
// all up to there.
func (r *rig) until(what string, ok func(event) bool) []event {
	r.t.Helper()
	nc := r.srv.Client(r.t)
	js := natstest.JetStream(r.t, nc)
	c, err := js.OrderedConsumer(context.Background(), "PLASPY_EVENTS", jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy})
	if err != nil {
		r.t.Fatal(err)
	}
	it, err := c.Messages()
	if err != nil {
		r.t.Fatal(err)
	}
	defer it.Stop()
	var list []event
	for {
		m, err := it.Next(jetstream.NextMaxWait(time.Minute))
		if err != nil {
			r.t.Fatalf("waiting for %s: %v; the stream has %v", what, err, summary(list))
		}
		list = append(list, event{m.Subject(), string(m.Data()), m.Headers()})
		if ok(list[len(list)-1]) {
			return list
		}
	}
}

// summary returns one line for each event: its subject and the main fields of its body.
func summary(list []event) []string {
	var lines []string
	for _, e := range list {
		var b struct {
			Change, State, Alert, DateTime, Source string
			Backfilled                             bool
			Location                               struct{ V any }
		}
		if err := json.Unmarshal([]byte(e.body), &b); err != nil {
			lines = append(lines, e.subject+" "+err.Error())
			continue
		}
		line := strings.TrimPrefix(e.subject, "plaspy.")
		for _, s := range []string{b.Change, b.State, b.Source} {
			if s != "" {
				line += " " + s
			}
		}
		if b.Backfilled {
			line += " backfilled"
		}
		if b.Location.V != nil {
			line += fmt.Sprint(" ", b.Location.V)
		}
		lines = append(lines, line)
	}
	return lines
}

// withoutDevices drops device events, which most tests are not about.
func withoutDevices(lines []string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(s string) bool { return strings.HasPrefix(s, "device") })
}

// at is a fix at a second of a fixed minute, with a value and more fields.
func at(second int, v any, more ...string) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	s := fmt.Sprintf(`{"dateTime":"2026-01-02T03:%02d:%02dZ","latitude":4.7,"longitude":-74.1,"v":%s`, second/60, second%60, b)
	for _, m := range more {
		s += "," + m
	}
	return s + "}"
}

// forgetPolls makes polls count only later polls.
func (r *rig) forgetPolls() {
	for len(r.api.polled) > 0 {
		<-r.api.polled
	}
}

// polls waits until n polls of a device begin after this moment. Each but the last has
// ended then.
func (r *rig) polls(id string, n int) {
	r.t.Helper()
	r.forgetPolls()
	timeout := time.After(time.Minute)
	for range n {
		for got := ""; got != id; {
			select {
			case got = <-r.api.polled:
			case <-timeout:
				r.t.Fatalf("%s was not polled %d times in a minute", id, n)
			}
		}
	}
}

func body(substring string) func(event) bool {
	return func(e event) bool { return strings.Contains(e.body, substring) }
}
