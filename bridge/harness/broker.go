package harness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"plaspy-bridge/bridge/harness/judge"
	"plaspy-bridge/bridge/harness/timeline"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Broker is a nats-server process with a store of its own and a port that it
// keeps. It is safe for concurrent use.
type Broker struct {
	*Process

	addr  string
	dir   string // the store; copies lie beside it
	nc    *nats.Conn
	js    jetstream.JetStream
	ready chan struct{} // has something whenever the client connects

	mu     sync.Mutex
	away   []timeline.Span
	losses []judge.Loss
	copies int

	removed removals
}

// NewBroker makes a broker that does not run yet.
func NewBroker(bin, dir, addr string) (*Broker, error) {
	b := &Broker{
		Process: &Process{name: "nats-server", bin: bin, log: filepath.Join(dir, "nats-server.log")},
		addr:    addr, dir: filepath.Join(dir, "store"), ready: make(chan struct{}, 1), removed: removals{at: map[uint64][]time.Time{}},
	}
	told := func(*nats.Conn) {
		select {
		case b.ready <- struct{}{}:
		default:
		}
	}
	var err error
	b.nc, err = nats.Connect(b.URL(), nats.Name("harness"), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1),
		nats.ReconnectWait(20*time.Millisecond), nats.ReconnectJitter(5*time.Millisecond, 0), nats.PingInterval(time.Second),
		nats.ConnectHandler(told), nats.ReconnectHandler(told), nats.ReconnectBufSize(-1))
	if err != nil {
		return nil, fmt.Errorf("harness client: %w", err)
	}
	if b.js, err = jetstream.New(b.nc); err != nil {
		b.nc.Close()
		return nil, fmt.Errorf("harness client: %w", err)
	}
	if err := b.removed.watch(b.nc); err != nil {
		b.nc.Close()
		return nil, fmt.Errorf("harness client: %w", err)
	}
	return b, nil
}

// URL is where clients connect.
func (b *Broker) URL() string { return "nats://" + b.addr }

// JetStream is the harness's own access to the streams.
func (b *Broker) JetStream() jetstream.JetStream { return b.js }

// Conn is the harness's own connection.
func (b *Broker) Conn() *nats.Conn { return b.nc }

// Start starts the server and waits until JetStream answers.
func (b *Broker) Start(ctx context.Context) error {
	host, port, err := net.SplitHostPort(b.addr)
	if err != nil {
		return fmt.Errorf("nats-server: %w", err)
	}
	select {
	case <-b.ready: // of an earlier life
	default:
	}
	if err := b.Process.Start([]string{"-a", host, "-p", port, "-js", "-sd", b.dir, "-n", "harness"}, os.Environ()); err != nil {
		return err
	}
	return b.back(ctx)
}

// back waits until JetStream answers again, and ends the time of being away.
func (b *Broker) back(ctx context.Context) error {
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		if b.nc.IsConnected() {
			ask, cancel := context.WithTimeout(ctx, time.Second)
			_, err := b.js.AccountInfo(ask)
			cancel()
			if err == nil {
				tick.Stop()
				break
			}
		}
		select {
		case <-b.ready:
		case <-tick.C:
		case <-ctx.Done():
			tick.Stop()
			return fmt.Errorf("nats-server is not ready: %w", context.Cause(ctx))
		}
		if !b.Running() {
			tick.Stop()
			log, _ := b.Log()
			return fmt.Errorf("nats-server ended: %s", tail(log))
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := len(b.away); n > 0 && b.away[n-1].To.IsZero() {
		b.away[n-1].To = time.Now()
	}
	return nil
}

func (b *Broker) leaves() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := len(b.away); n == 0 || !b.away[n-1].To.IsZero() {
		b.away = append(b.away, timeline.Span{From: time.Now()})
	}
}

// Kill ends the server as kill -9 does.
func (b *Broker) Kill() error {
	b.leaves()
	return b.Process.Kill()
}

// Stop ends the server as SIGTERM does.
func (b *Broker) Stop(ctx context.Context) error {
	b.leaves()
	life, err := b.Process.Stop(ctx)
	if err == nil && life.Status > 1 { // 1 is what nats-server 2.15.2 makes of SIGTERM
		err = fmt.Errorf("nats-server ended with status %d", life.Status)
	}
	return err
}

// Pause has the server stand still.
func (b *Broker) Pause() error {
	b.leaves()
	return b.Process.Pause()
}

// Resume lets the server go on and waits until it answers.
func (b *Broker) Resume(ctx context.Context) error {
	if err := b.Process.Resume(); err != nil {
		return err
	}
	return b.back(ctx)
}

// Copy is a store as it was at a moment.
type Copy struct {
	dir string
	at  time.Time
}

// Copy copies the store as a power cut would leave it. The server stands still
// meanwhile, so that the copy is of one moment.
func (b *Broker) Copy(ctx context.Context) (Copy, error) {
	b.mu.Lock()
	b.copies++
	c := Copy{dir: b.dir + "-copy-" + strconv.Itoa(b.copies), at: time.Now()}
	b.mu.Unlock()
	if err := b.Pause(); err != nil {
		return c, err
	}
	err := os.CopyFS(c.dir, os.DirFS(b.dir))
	return c, errors.Join(err, b.Resume(ctx))
}

// Rollback kills the server and starts it on an older copy of its store.
func (b *Broker) Rollback(ctx context.Context, c Copy) error {
	loss := judge.Loss{Since: c.at, Read: time.Now()}
	var err error
	if loss.Held, err = ReadEvents(ctx, b.js, prefix); err != nil {
		return err
	}
	if err := b.Kill(); err != nil {
		return err
	}
	b.lost(loss)
	if err := os.RemoveAll(b.dir); err != nil {
		return err
	}
	if err := os.CopyFS(b.dir, os.DirFS(c.dir)); err != nil {
		return err
	}
	return b.Start(ctx)
}

// DeleteStream deletes the events stream under the bridge.
func (b *Broker) DeleteStream(ctx context.Context) error {
	loss := judge.Loss{All: true, Read: time.Now()}
	var err error
	if loss.Held, err = ReadEvents(ctx, b.js, prefix); err != nil {
		return err
	}
	err = b.js.DeleteStream(ctx, prefix.Events())
	b.lost(loss)
	if err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("delete stream %s: %w", prefix.Events(), err)
	}
	return nil
}

func (b *Broker) lost(l judge.Loss) {
	l.At = time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.losses = append(b.losses, l)
}

// Away gives the times in which the server could not store anything.
func (b *Broker) Away() []timeline.Span {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.away)
}

// Losses gives the events by which the server lost what it had acknowledged.
func (b *Broker) Losses() []judge.Loss {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.losses)
}

// close ends the client and the server.
func (b *Broker) close() {
	b.nc.Close()
	b.end()
}

// tail is the end of a log, for errors.
func tail(log string) string {
	const most = 2000
	if len(log) > most {
		log = "..." + log[len(log)-most:]
	}
	return log
}
