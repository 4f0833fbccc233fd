package main

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/deploy/examples/plaspy"
	"plaspy-bridge/publisher/natstest"
)

func TestMain(m *testing.M) { natstest.Main(m) }

// record notes the locations in the order in which workers handled them.
type record struct {
	mu      sync.Mutex
	first   map[string][]uint64 // by device: sequences, each once
	seen    map[uint64]bool
	doubles int
	workers map[string]int
	changed chan struct{}
}

// process is a worker that can be killed.
type process struct {
	ctx  context.Context // until it is killed
	die  context.CancelFunc
	dead atomic.Bool   // it is being killed, so its errors do not count
	hang atomic.Bool   // it is to be killed after its next effect, before the acknowledgement
	hung chan struct{} // closed when it waits for that
}

func (r *record) handle(worker string, p *process) func(jetstream.Msg) error {
	return func(msg jetstream.Msg) error {
		if p.ctx.Err() != nil {
			return p.ctx.Err() // a process that was killed has no effect
		}
		seq, err := strconv.ParseUint(sequence(msg), 10, 64)
		if err != nil {
			return err
		}
		r.note(worker, msg.Subject(), seq)
		if p.hang.CompareAndSwap(true, false) {
			close(p.hung)
			<-p.ctx.Done()
		}
		return nil
	}
}

func (r *record) note(worker, subject string, seq uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen[seq] {
		r.doubles++
	} else {
		r.seen[seq] = true
		r.first[subject] = append(r.first[subject], seq)
	}
	r.workers[worker]++
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// wait blocks until a condition holds.
func (r *record) wait(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for timeout := time.After(2 * time.Minute); ; {
		r.mu.Lock()
		ok := holds()
		r.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-r.changed:
		case <-timeout:
			r.mu.Lock()
			defer r.mu.Unlock()
			t.Fatalf("%s: %d handled, by %v", what, len(r.seen), r.workers)
		}
	}
}

// TestOrderWhileWorkersComeAndGo kills, adds and stops workers while locations
// come. Each device's locations are handled in order and none is left out.
func TestOrderWhileWorkersComeAndGo(t *testing.T) {
	srv := natstest.Start(t, natstest.Listen)
	connect := func() (*nats.Conn, jetstream.JetStream) {
		nc, err := nats.Connect(srv.ClientURL(), nats.Timeout(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		js := natstest.JetStream(t, nc)
		return nc, js
	}
	nc, js := connect()
	defer nc.Close()
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: plaspy.EventsStream, Subjects: []string{"plaspy.location.*"}}); err != nil {
		t.Fatal(err)
	}
	g := group{js: js, name: "reports", ackWait: 2 * time.Second}
	if err := g.create(t.Context(), 8); err != nil {
		t.Fatal(err)
	}
	r := &record{first: map[string][]uint64{}, seen: map[uint64]bool{}, workers: map[string]int{}, changed: make(chan struct{}, 1)}
	const devices = 40
	published := 0
	publish := func(n int) {
		for range n {
			if _, err := js.Publish(t.Context(), plaspy.LocationSubject(fmt.Sprint("dev ", published%devices)), []byte("{}")); err != nil {
				t.Fatal(err)
			}
			published++
		}
	}
	// start runs a worker on a connection of its own, as a process would.
	start := func(name string) (kill, stop func()) {
		nc, js := connect()
		p := &process{hung: make(chan struct{})}
		p.ctx, p.die = context.WithCancel(context.Background())
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			if err := (group{js, g.name, g.ackWait}).work(ctx, name, r.handle(name, p)); err != nil && !p.dead.Load() {
				t.Error(err)
			}
		}()
		stop = func() {
			cancel()
			<-done
			nc.Close()
		}
		kill = func() {
			p.hang.Store(true)
			for hung := false; !hung; {
				publish(devices) // it may have handled all that was there
				select {
				case <-p.hung:
					hung = true
				case <-time.After(100 * time.Millisecond):
				}
			}
			p.dead.Store(true)
			nc.Close() // between effect and acknowledgement, without leaving the group
			p.die()
			cancel()
			<-done
		}
		t.Cleanup(func() { p.dead.Store(true); nc.Close(); p.die(); cancel(); <-done })
		return kill, stop
	}
	handledBy := func(name string, n int) func() bool { return func() bool { return r.workers[name] >= n } }

	kill1, _ := start("w1")
	publish(400)
	// A worker that has handled nothing yet gives its devices up only after ackWait.
	r.wait(t, "one worker", handledBy("w1", 1))
	_, stop2 := start("w2")
	publish(400)
	r.wait(t, "two workers", handledBy("w2", 1))
	_, stop3 := start("w3")
	publish(400)
	kill1()
	if err := g.drop(t.Context(), "w1"); err != nil {
		t.Fatal(err)
	}
	publish(400)
	r.wait(t, "a third worker", handledBy("w3", 1))
	stop2()
	publish(400)
	_, stop4 := start("w4")
	publish(400)
	r.wait(t, "all locations", func() bool { return len(r.seen) == published })
	stop3()
	stop4()

	for subject, sequences := range r.first {
		for i := 1; i < len(sequences); i++ {
			if sequences[i] < sequences[i-1] {
				t.Errorf("%s: %d handled after %d", subject, sequences[i], sequences[i-1])
			}
		}
	}
	// One in flight for each of the changes, of each of the workers at the time.
	if most := 5 * 3; r.doubles < 1 || r.doubles > most {
		t.Errorf("%d doubles, want the one of the killed worker and at most %d", r.doubles, most)
	}
	t.Logf("%d locations of %d devices, %d doubles, by worker %v", published, devices, r.doubles, r.workers)
}
