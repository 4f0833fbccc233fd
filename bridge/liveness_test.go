package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"plaspy-bridge/bridge/inbound"
	"plaspy-bridge/bridge/ops"
	"plaspy-bridge/bridge/outbound"
	"plaspy-bridge/bridge/outbound/schedule"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

// slowAPI answers as a test wants it to.
type slowAPI struct {
	devices int
	calls   *calls
	// answer runs before a poll answers, with or without an error.
	answer func(ctx context.Context, id string) error
}

func (a *slowAPI) Devices(context.Context) (list []plaspy.Device, skipped []error, err error) {
	for i := range a.devices {
		id := fmt.Sprint("d", i)
		list = append(list, plaspy.Device{ID: id, Raw: json.RawMessage(fmt.Sprintf(`{"id":%q}`, id))})
	}
	return list, nil, nil
}

func (a *slowAPI) Groups(context.Context) ([]plaspy.Group, []error, error) { return nil, nil, nil }

func (a *slowAPI) LastLocation(ctx context.Context, id string, _ []byte) (plaspy.LastLocation, error) {
	a.calls.begin()
	defer a.calls.end()
	if a.answer != nil {
		if err := a.answer(ctx, id); err != nil {
			return plaspy.LastLocation{}, err
		}
	}
	now := time.Now()
	raw := fmt.Appendf(nil, `{"dateTime":%q,"latitude":1,"longitude":2}`, now.Format(time.RFC3339))
	return plaspy.LastLocation{Raw: raw, At: now}, nil
}

func (a *slowAPI) Locations(context.Context, string, []byte, plaspy.PostOptions) (plaspy.Answer, error) {
	return plaspy.Answer{}, errors.ErrUnsupported
}

func (a *slowAPI) Alerts(context.Context, string, []byte, plaspy.PostOptions) (plaspy.Answer, error) {
	return plaspy.Answer{}, errors.ErrUnsupported
}

func (a *slowAPI) DeviceURL(string) string { return "" }

// slowStream takes events, or keeps them.
type slowStream struct {
	away  atomic.Bool // the broker is
	keeps atomic.Bool // takes events and never says so

	mu      sync.Mutex
	seq     uint64
	pending []func(error)
}

func (s *slowStream) Publish(_ context.Context, events []*publisher.Event, done func(error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keeps.Load() || s.away.Load() {
		s.pending = append(s.pending, done)
		return nil
	}
	for _, e := range events {
		s.seq++
		e.Seq = s.seq
	}
	go done(nil)
	return nil
}

// giveBack ends the polls that were kept.
func (s *slowStream) giveBack() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, done := range s.pending {
		go done(publisher.ErrStopped)
	}
	s.pending = nil
}

func (s *slowStream) work() (pending int, acked uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pending), s.seq
}

func (s *slowStream) State(context.Context, bool, func(publisher.Stored)) (publisher.Mark, error) {
	return publisher.Mark{}, nil
}
func (s *slowStream) StateOf(context.Context, string, bool, func(publisher.Stored)) error { return nil }
func (s *slowStream) Last(context.Context, string) (*publisher.Stored, error)             { return nil, nil }
func (s *slowStream) Mark(context.Context) (publisher.Mark, error)                        { return publisher.Mark{}, nil }
func (s *slowStream) Connected() bool                                                     { return !s.away.Load() }

// patient is a pool on such an API and such a stream, under watch, in a bubble.
type patient struct {
	*slowAPI
	*slowStream
	budget *plaspy.Budget
	health *ops.Health
	opts   outbound.Options
	live   func() bool // nil: it is
	noAPI  atomic.Bool // there is no token
	hang   chan struct{}
}

// Owns implements [outbound.Ownership].
func (p *patient) Owns(string) bool { return true }

// Live implements [outbound.Ownership].
func (p *patient) Live() bool { return p.live == nil || p.live() }

// Lapsed implements [outbound.Ownership].
func (p *patient) Lapsed() bool { return false }

const patience = 80 * time.Second

// never implements a call that blocks until the end of the test and ignores its context.
func (p *patient) never(context.Context, string) error {
	<-p.hang
	return errors.New("at last")
}

func (p *patient) run(t *testing.T, during func()) {
	t.Helper()
	l := newLiveness(p.health, patience, false)
	p.opts.Alive = l.dispatcher.Beat
	log := slog.New(slog.DiscardHandler)
	pool := outbound.New(p.opts, outbound.Parts{
		API: p.slowAPI, Devices: p.slowAPI, Gaps: p.slowAPI, Budget: p.budget,
		Circuit: plaspy.NewCircuit(plaspy.CircuitOptions{Log: log, Max: time.Minute}),
		Events:  p.slowStream, State: p.slowStream, Connected: p.Connected, Owner: p,
		Schedule: schedule.NewFixed(30 * time.Second), Subjects: publisher.Subjects("plaspy"), Log: log,
	})
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { pool.Run(ctx) })
	all.Go(func() {
		for ctx.Err() == nil {
			s := pulse{rate: p.budget.PollRate()}
			if p.away.Load() {
				s.broker = "away"
			}
			if p.noAPI.Load() || p.budget.Paused() {
				s.api = "nothing may be sent"
			}
			s.polls, s.ended = pool.Work()
			s.ended += p.calls.ended.Load()
			s.pending, s.acked = p.work()
			l.look(s)
			time.Sleep(250 * time.Millisecond)
		}
	})
	during()
	cancel()
	close(p.hang)
	p.giveBack()
	all.Wait()
}

// TestLiveness runs the real pool against all kinds of faults. A false restart is
// worse than a late one: a fault that a restart does not remove never counts, however
// long it lasts.
func TestLiveness(t *testing.T) {
	t.Parallel()
	const forever = 0
	outage := &plaspy.Error{Endpoint: "last_location", Message: "no answer in time"}
	for _, tc := range []struct {
		name string
		set  func(p *patient)
		dead time.Duration // from when on it counts as dead, at the latest; 0: never
		part string        // by which heart
	}{
		{"all is well", func(*patient) {}, forever, ""},
		{"no devices", func(p *patient) { p.devices = 0 }, forever, ""},
		{"the API is down", func(p *patient) {
			p.answer = func(context.Context, string) error { time.Sleep(10 * time.Second); return outage }
		}, forever, ""},
		{"the API refuses", func(p *patient) {
			p.answer = func(context.Context, string) error { return &plaspy.Error{Status: 403, Message: "no permission"} }
		}, forever, ""},
		{"one device of the API hangs", func(p *patient) {
			p.answer = func(ctx context.Context, id string) error {
				if id == "d3" {
					return p.never(ctx, id)
				}
				return nil
			}
		}, forever, ""},
		{"calls never return", func(p *patient) { p.answer = p.never }, 2 * patience, "polls"},
		{"the only device's call never returns", func(p *patient) { p.devices, p.answer = 1, p.never }, 2 * patience, "polls"},
		{"NATS is away from the start", func(p *patient) { p.away.Store(true) }, forever, ""},
		{"NATS goes away, with events on their way", func(p *patient) {
			time.AfterFunc(time.Hour, func() { p.away.Store(true) })
			time.AfterFunc(3*time.Hour, func() { p.away.Store(false); p.giveBack() })
		}, forever, ""},
		{"the stream never answers", func(p *patient) { p.keeps.Store(true) }, 2 * patience, "acknowledgements"},
		{"hardly any budget", func(p *patient) { p.budget = plaspy.NewBudget(1, p.budgetLog(), nil) }, forever, ""},
		{"a standby's budget", func(p *patient) {
			p.budget = plaspy.NewBudget(600, p.budgetLog(), nil)
			p.budget.SetShare(0)
		}, forever, ""},
		{"the API asks for hours of silence", func(p *patient) {
			for i := range 4 {
				time.AfterFunc(time.Duration(i)*time.Hour, func() { p.budget.Throttled(59*time.Minute, true) })
			}
		}, forever, ""},
		{"the key is refused", func(p *patient) {
			p.noAPI.Store(true)
			p.opts.Token = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		}, forever, ""},
		{"the key is refused while calls wait for a token", func(p *patient) {
			p.noAPI.Store(true)
			p.answer = func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }
		}, forever, ""},
		{"a standby", func(p *patient) { p.live = func() bool { return false } }, forever, ""},
		{"the dispatcher hangs", func(p *patient) {
			p.live = func() bool { <-p.hang; return true }
		}, 2 * patience, "dispatcher"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &patient{slowAPI: &slowAPI{devices: 8, calls: &calls{}}, slowStream: &slowStream{}, health: ops.NewHealth(), hang: make(chan struct{})}
				p.budget = plaspy.NewBudget(0, p.budgetLog(), nil)
				p.opts = outbound.Options{
					Workers: 4, Refresh: time.Hour, BackfillAfter: time.Second, BackoffInitial: time.Second, BackoffMax: time.Minute, Grace: time.Second,
				}
				tc.set(p)
				p.run(t, func() {
					const step, most = 10 * time.Second, 4 * time.Hour
					for at := step; at <= most; at += step {
						time.Sleep(step)
						live, hearts := p.health.Live()
						switch {
						case !live && (tc.dead == forever || at < patience):
							t.Fatalf("dead after %v: %+v", at, hearts)
						case !live && hearts[tc.part].OK:
							t.Fatalf("dead, but not by %s: %+v", tc.part, hearts)
						case !live:
							return
						case tc.dead != forever && at > tc.dead:
							t.Fatalf("still alive after %v: %+v", at, hearts)
						}
					}
				})
			})
		})
	}
}

func (p *patient) budgetLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

// TestLivenessOfPosts is about the consumer side, and about a process that was
// stopped for a while.
func TestLivenessOfPosts(t *testing.T) {
	t.Parallel()
	const hour = time.Hour
	for _, tc := range []struct {
		name string
		step time.Duration
		look func(n int) pulse
		dead bool
	}{
		{"nothing to post", time.Second, func(int) pulse { return pulse{} }, false},
		{"posts end", time.Second, func(n int) pulse { return pulse{posts: 3, posted: uint64(n / 60)} }, false},
		{"posts never end", time.Second, func(int) pulse { return pulse{posts: 3, posted: 7} }, true},
		{"posts never end while polls do", time.Second, func(n int) pulse { return pulse{posts: 3, polls: 1, ended: uint64(n)} }, true},
		{"polls never end while posts do", time.Second, func(n int) pulse { return pulse{posts: 1, posted: uint64(n), polls: 3} }, true},
		{"the consumer's stream is in trouble", time.Second, func(int) pulse { return pulse{posts: 3, consumer: "trouble"} }, false},
		{"no token", time.Second, func(int) pulse { return pulse{posts: 3, polls: 3, api: "none"} }, false},
		{"no broker", time.Second, func(int) pulse { return pulse{pending: 3, polls: 3, broker: "away"} }, false},
		{"no acknowledgement", time.Second, func(int) pulse { return pulse{pending: 3} }, true},
		{"a slow broker", time.Second, func(n int) pulse { return pulse{pending: 3, acked: uint64(n / 70)} }, false},
		{"conflicts, and no acknowledgement", time.Second, func(n int) pulse { return pulse{pending: 3, polls: 3, ended: uint64(n / 70)} }, false},
		{"stopped and continued", 10 * time.Minute, func(int) pulse { return pulse{posts: 3, polls: 3, pending: 3} }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := ops.NewHealth()
				l := newLiveness(h, patience, true)
				died := false
				for n := range int(3 * hour / tc.step) {
					p := tc.look(n)
					p.rate = math.Inf(1)
					l.look(p)
					l.dispatcher.Beat()
					l.inbound.Beat()
					live, _ := h.Live()
					died = died || !live
					time.Sleep(tc.step)
				}
				if died != tc.dead {
					_, hearts := h.Live()
					t.Errorf("died %t, want %t: %+v", died, tc.dead, hearts)
				}
				// A stuck pool may take long to stop.
				l.stopping()
				time.Sleep(hour)
				if live, hearts := h.Live(); !live {
					t.Errorf("dead while it stops: %+v", hearts)
				}
			})
		})
	}
}

// stuckPoster never returns from a post.
type stuckPoster struct{ hang chan struct{} }

func (s stuckPoster) Locations(context.Context, string, []byte, plaspy.PostOptions) (plaspy.Answer, error) {
	<-s.hang
	return plaspy.Answer{Status: http.StatusOK, Body: []byte(`{"success":true}`)}, nil
}

func (s stuckPoster) Alerts(ctx context.Context, id string, body []byte, o plaspy.PostOptions) (plaspy.Answer, error) {
	return s.Locations(ctx, id, body, o)
}

// TestLivenessOfStuckLanes runs the real consumer: its reader continues, and no
// post ever ends.
func TestLivenessOfStuckLanes(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	pub := srv.Publisher(t, "plaspy")
	log := slog.New(slog.DiscardHandler)
	h := ops.NewHealth()
	l := newLiveness(h, time.Second, true)
	sent, hang := &calls{}, make(chan struct{})
	consumer, err := inbound.New(inbound.Options{
		JetStream: pub.JetStream(), Subjects: "plaspy", API: countedPosts{stuckPoster{hang}, sent}, Log: log, Workers: 2,
		Circuit: plaspy.NewCircuit(plaspy.CircuitOptions{Name: "posts", Log: log}), Progress: l.inbound.Beat,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		consumer.Run(ctx)
	}()
	for i := range 5 {
		subject := publisher.Subjects("plaspy").InLocation(fmt.Sprint("d", i))
		if _, err := natstest.Own(t, pub).Publish(ctx, subject, []byte(`{"dateTime":"2026-01-02T03:04:01Z","latitude":4.7,"longitude":-74.1}`)); err != nil {
			t.Fatal(err)
		}
	}
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for end := time.Now().Add(time.Minute); ; <-ticker.C {
		s := consumer.Status()
		l.look(pulse{rate: math.Inf(1), posts: max(s.Ready, int(sent.underway.Load())), posted: sent.ended.Load()})
		l.dispatcher.Beat()
		l.inbound.Beat()
		live, hearts := h.Live()
		// The test may be too late for the beats that are its own.
		if !live && !hearts["posts"].OK && sent.underway.Load() > 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("it is not noticed that no post ends: %+v", hearts)
		}
	}
	close(hang)
	cancel()
	<-ended
}
