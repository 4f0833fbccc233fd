// Package natstest runs real nats-servers inside tests. JetStream stores in a
// temporary folder, the servers use no sockets by default, and they stop when the
// test ends.
package natstest

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest/loopback"
)

// patience is how long a server may take to start and a connection to be made,
// beside busy processes.
const patience = time.Minute

// ports are those of the servers that listen.
var ports loopback.Ports

// Server is a server that can be stopped and restarted with the same store and, if it
// listens, the same port.
type Server struct {
	*server.Server

	tb   testing.TB
	opts server.Options
}

// Start starts a server. By default it does not listen; set changes its options.
func Start(tb testing.TB, set ...func(*server.Options)) *Server {
	tb.Helper()
	s := &Server{tb: tb, opts: server.Options{
		DontListen: true, AuthTimeout: patience.Seconds(), JetStreamMaxStore: 1 << 40, JetStream: true, StoreDir: tb.TempDir(), NoSigs: true, NoLog: true,
	}}
	for _, f := range set {
		f(&s.opts)
	}
	s.start()
	tb.Cleanup(s.Kill)
	return s
}

// StartCluster starts servers that form a cluster, n0 and so on; set changes the options of
// each.
func StartCluster(tb testing.TB, servers int, set ...func(*server.Options)) (cluster []*Server) {
	tb.Helper()
	var ports []int
	var routes []*url.URL
	for range servers {
		port := freePort(tb)
		ports = append(ports, port)
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", port)})
	}
	for i, port := range ports {
		join := func(o *server.Options) {
			o.ServerName, o.Routes = fmt.Sprintf("n%d", i), routes
			o.Cluster = server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: port}
		}
		cluster = append(cluster, Start(tb, append([]func(*server.Options){Listen, join}, set...)...))
	}
	return cluster
}

// Listen makes a server listen on a free port of loopback.
func Listen(o *server.Options) {
	o.DontListen, o.Host, o.Port = false, "127.0.0.1", server.RANDOM_PORT
}

func (s *Server) start() {
	s.tb.Helper()
	if !s.opts.DontListen && s.opts.Port == server.RANDOM_PORT {
		s.opts.Port = freePort(s.tb)
	}
	opts := s.opts
	srv, err := server.NewServer(&opts)
	if err != nil {
		s.tb.Fatal(err)
	}
	s.Server = srv
	srv.Start()
	if !srv.ReadyForConnections(patience) {
		s.tb.Fatal("nats-server is not ready")
	}
}

// freePort returns a port that no other program gets between [Server.Kill] and
// [Server.Restart].
func freePort(tb testing.TB) int {
	tb.Helper()
	addr, err := ports.Take(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	return int(netip.MustParseAddrPort(addr).Port())
}

// Kill stops the server and waits until it has shut down.
func (s *Server) Kill() {
	s.Shutdown()
	s.WaitForShutdown()
}

// Restart starts the server again after [Server.Kill].
func (s *Server) Restart() {
	s.tb.Helper()
	s.start()
}

// Dir returns the folder of the server's store.
func (s *Server) Dir() string { return s.opts.StoreDir }

// Client connects a client and closes it when the test ends.
func (s *Server) Client(tb testing.TB) *nats.Conn {
	tb.Helper()
	opts := []nats.Option{nats.MaxReconnects(-1), nats.ReconnectWait(20 * time.Millisecond), nats.Timeout(patience)}
	if s.opts.DontListen {
		opts = append(opts, nats.InProcessServer(s.Server))
	}
	nc, err := nats.Connect(s.ClientURL(), opts...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(nc.Close)
	return nc
}

// JetStream is for a test's own requests. They may take as long as a busy machine takes
// if their context has no deadline; the library's limit is 5 s.
func JetStream(tb testing.TB, nc *nats.Conn) jetstream.JetStream {
	tb.Helper()
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(patience))
	if err != nil {
		tb.Fatal(err)
	}
	return js
}

// Own is [JetStream] on the connection of a publisher.
func Own(tb testing.TB, p *publisher.Publisher) jetstream.JetStream {
	tb.Helper()
	return JetStream(tb, p.JetStream().Conn())
}

// Conn connects as the bridge does.
func (s *Server) Conn(tb testing.TB) *publisher.Conn {
	tb.Helper()
	o := publisher.ConnOptions{Name: tb.Name()}
	if s.opts.DontListen {
		o.InProcess = s
	} else {
		o.URL = s.ClientURL()
	}
	c, err := publisher.Connect(o, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Shut(time.Second) })
	select {
	case <-c.Up():
	case <-time.After(patience):
		tb.Fatal("no connection to the test's nats-server")
	}
	return c
}

// Publisher creates the bridge's streams and runs a publisher on them.
func (s *Server) Publisher(tb testing.TB, subjects publisher.Subjects) *publisher.Publisher {
	tb.Helper()
	p, err := publisher.New(s.Conn(tb), subjects, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := publisher.EnsureStreams(tb.Context(), Own(tb, p), subjects.Streams(publisher.StreamOptions{Inbound: true})); err != nil {
		tb.Fatal(err)
	}
	Run(tb, p.Run)
	return p
}

// Run runs f until the test ends and waits for it.
func Run(tb testing.TB, f func(context.Context)) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(ctx)
	}()
	tb.Cleanup(func() {
		cancel()
		<-done
	})
}

// Eventually waits until ok, for as long as a busy machine may take.
func Eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	limit := time.NewTimer(4 * time.Minute)
	defer limit.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit.C:
			tb.Fatalf("waited in vain for: %s", what)
		}
	}
}

// Stopwatch measures time until the function that it returns is called. Of a longer time
// in which the process, or its goroutine, did not get the CPU, it counts a tenth of a
// second.
func Stopwatch() (took func() time.Duration) {
	const tick = 10 * time.Millisecond
	end, result := make(chan struct{}), make(chan time.Duration)
	go func() {
		ticker := time.NewTicker(tick)
		defer ticker.Stop()
		sum, last := time.Duration(0), time.Now()
		for {
			stop := false
			select {
			case <-end:
				stop = true
			case <-ticker.C:
			}
			now := time.Now()
			sum += min(now.Sub(last), 10*tick)
			if last = now; stop {
				result <- sum
				return
			}
		}
	}()
	return sync.OnceValue(func() time.Duration { close(end); return <-result })
}

// Main runs a package's tests and fails if they leave goroutines behind. Tests with
// a server wait far more than they compute, so more parallel ones run at a time than
// there are processors. The flag -parallel overrides that.
func Main(m *testing.M) {
	_ = flag.Set("test.parallel", parallel) // the package testing defines it
	goleak.VerifyTestMain(m, Leaks()...)
}

// Leaks ignores goroutines that nats-server 2.15.2 itself leaks if it is shut down
// while it creates a stream or sets up a source. The first one ends after half a
// minute, the others never end.
func Leaks() []goleak.Option {
	return []goleak.Option{
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*stream).trySetupSourceConsumer.func3"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).flushStreamStateLoop"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
	}
}
