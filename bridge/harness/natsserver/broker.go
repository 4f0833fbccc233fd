package natsserver

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

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/harness/judge"
	"plaspy-bridge/bridge/harness/process"
	"plaspy-bridge/bridge/harness/timeline"
	"plaspy-bridge/publisher"
)

// Subjects are the subjects and streams of the bridges under test, those of
// BRIDGE_PREFIX.
const Subjects publisher.Subjects = "plaspy"

// Broker is a nats-server process with a store and a port of its own. It is safe for
// concurrent use.
type Broker struct {
	*process.Process

	addr  string
	dir   string // the store, with its copies beside it
	nc    *nats.Conn
	js    jetstream.JetStream
	ready chan struct{} // receives a value whenever the client connects

	mu     sync.Mutex
	away   []timeline.Span
	losses []judge.Loss
	copies int

	removed removals
}

// New makes a broker that does not run yet. Its store and log are in dir.
func New(bin, dir, addr string) (*Broker, error) {
	b := &Broker{
		Process: process.New("nats-server", bin, filepath.Join(dir, "nats-server.log")),
		addr:    addr, dir: filepath.Join(dir, "store"), ready: make(chan struct{}, 1), removed: removals{at: map[uint64][]time.Time{}},
	}
	connected := func(*nats.Conn) {
		select {
		case b.ready <- struct{}{}:
		default:
		}
	}
	var err error
	b.nc, err = nats.Connect(b.URL(), nats.Name("harness"), nats.RetryOnFailedConnect(true), nats.Timeout(10*time.Second), nats.MaxReconnects(-1),
		nats.ReconnectWait(20*time.Millisecond), nats.ReconnectJitter(5*time.Millisecond, 0), nats.PingInterval(10*time.Second),
		nats.ConnectHandler(connected), nats.ReconnectHandler(connected), nats.ReconnectBufSize(-1))
	if err != nil {
		return nil, fmt.Errorf("harness client: %w", err)
	}
	if b.js, err = jetstream.New(b.nc, jetstream.WithDefaultTimeout(time.Minute)); err != nil {
		b.nc.Close()
		return nil, fmt.Errorf("harness client: %w", err)
	}
	if err := b.removed.watch(b.nc); err != nil {
		b.nc.Close()
		return nil, fmt.Errorf("harness client: %w", err)
	}
	return b, nil
}

// URL returns the URL for clients.
func (b *Broker) URL() string { return "nats://" + b.addr }

// JetStream returns the harness's access to the streams.
func (b *Broker) JetStream() jetstream.JetStream { return b.js }

// Conn returns the harness's connection.
func (b *Broker) Conn() *nats.Conn { return b.nc }

// Start starts the server and waits until JetStream answers.
func (b *Broker) Start(ctx context.Context) error {
	if err := b.Launch([]string{"-n", "harness"}, nil); err != nil {
		return err
	}
	return b.Answers(ctx)
}

// Launch starts the server with further arguments and variables, each "NAME=value", and
// does not wait until it answers.
func (b *Broker) Launch(args, env []string) error {
	host, port, err := net.SplitHostPort(b.addr)
	if err != nil {
		return fmt.Errorf("nats-server: %w", err)
	}
	select {
	case <-b.ready: // of an earlier life
	default:
	}
	all := append([]string{"-a", host, "-p", port, "-js", "-sd", b.dir}, args...)
	return b.Process.Start(all, append(os.Environ(), env...))
}

// Answers waits until JetStream answers, which ends the span in which the broker was away.
func (b *Broker) Answers(ctx context.Context) error {
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
			return fmt.Errorf("nats-server ended: %s", b.LogEnd())
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := len(b.away); n > 0 && b.away[n-1].To.IsZero() {
		b.away[n-1].To = time.Now()
	}
	return nil
}

// leaves begins a span in which the broker is away, unless there is one.
func (b *Broker) leaves() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := len(b.away); n == 0 || !b.away[n-1].To.IsZero() {
		b.away = append(b.away, timeline.Span{From: time.Now()})
	}
}

// Kill sends SIGKILL to the server.
func (b *Broker) Kill() error {
	b.leaves()
	return b.Process.Kill()
}

// Stop sends SIGTERM to the server and waits until it has ended.
func (b *Broker) Stop(ctx context.Context) error {
	b.leaves()
	life, err := b.Process.Stop(ctx)
	if err == nil && life.Status > 1 { // nats-server 2.15.2 returns 1 after SIGTERM
		err = fmt.Errorf("nats-server ended with status %d", life.Status)
	}
	return err
}

// Pause suspends the server.
func (b *Broker) Pause() error {
	b.leaves()
	return b.Process.Pause()
}

// Resume lets the server continue and waits until it answers.
func (b *Broker) Resume(ctx context.Context) error {
	if err := b.Process.Resume(); err != nil {
		return err
	}
	return b.Answers(ctx)
}

// Copy is a copy of the store at one moment.
type Copy struct {
	dir string
	at  time.Time
}

// Copy copies the store as a power failure would leave it. The server is suspended
// meanwhile, so that the copy shows one moment.
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
	if loss.Held, err = ReadEvents(ctx, b.js, Subjects); err != nil {
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
	if loss.Held, err = ReadEvents(ctx, b.js, Subjects); err != nil {
		return err
	}
	err = b.js.DeleteStream(ctx, Subjects.Events())
	b.lost(loss)
	if err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("delete stream %s: %w", Subjects.Events(), err)
	}
	return nil
}

// lost notes a loss that has just happened.
func (b *Broker) lost(l judge.Loss) {
	l.At = time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.losses = append(b.losses, l)
}

// Away returns the spans in which the server could not store anything.
func (b *Broker) Away() []timeline.Span {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.away)
}

// Losses returns the losses of acknowledged messages.
func (b *Broker) Losses() []judge.Loss {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.losses)
}

// Store returns the folder of the store.
func (b *Broker) Store() string { return b.dir }

// Addr returns the address on which the server listens.
func (b *Broker) Addr() string { return b.addr }

// Removed returns the times at which the server acknowledged the removal of inbound
// messages, by their sequence. The caller owns the map.
func (b *Broker) Removed() map[uint64][]time.Time { return b.removed.acknowledged() }

// Close ends the client and the server.
func (b *Broker) Close() {
	b.nc.Close()
	b.End()
}
