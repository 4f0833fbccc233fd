// Package embedded runs a NATS server with JetStream inside the process. It listens
// on the configured address, so that other programs can subscribe, and keeps its
// streams in files.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// startTimeout is the time limit for the server's start. It includes the recovery of
// a large store.
const startTimeout = 60 * time.Second

// Options configure a [Server].
type Options struct {
	// Addr is host:port; port 0 means any free port. Ignored if Config is set.
	Addr string
	// Dir is the folder of the store. Start creates it. Only one process at a time
	// can use it. The store_dir of a configuration file takes precedence.
	Dir string
	// Config is a nats-server configuration file, for accounts, TLS, MQTT or leaf
	// nodes. JetStream is always enabled. Optional.
	Config string
	// Name is the server's name.
	Name string
}

// Server is a running server. It is safe for concurrent use.
type Server struct {
	opts Options
	log  *logger
	lock *os.File
	dir  string

	limit atomic.Int64 // of the store in bytes; 0 means set by the configuration file, or unknown

	mu      sync.Mutex
	srv     *server.Server
	reviver sync.Mutex // held while the server is restarted or stopped
	stopped bool       // guarded by reviver
}

// Start starts a server and waits until it accepts connections. An error names the
// setting to change, for an address in use, a store in use or not writable, or an
// invalid configuration file. Stop the server with [Server.Stop].
func Start(o Options, log *slog.Logger) (*Server, error) {
	opts, secrets, err := o.server()
	if err != nil {
		return nil, err
	}
	s := &Server{opts: o, dir: opts.StoreDir, log: &logger{log: log.With("component", "nats-server"), secrets: secrets}}
	if s.lock, err = lockDir(s.dir); err != nil {
		return nil, err
	}
	if err := s.start(opts); err != nil {
		return nil, errors.Join(err, s.unlock())
	}
	return s, nil
}

func (s *Server) start(opts *server.Options) error {
	if err := listenable(opts); err != nil {
		return err
	}
	if err := removeProbe(s.dir); err != nil {
		return err
	}
	if opts.JetStreamMaxStore == 0 {
		opts.JetStreamMaxStore = storeLimit(s.dir)
		s.limit.Store(opts.JetStreamMaxStore)
	}
	srv, err := server.NewServer(opts)
	if err != nil {
		return s.opts.refused(err, s.log.secrets)
	}
	srv.SetLoggerV2(s.log, false, false, false)
	srv.Start()
	switch {
	case !srv.ReadyForConnections(startTimeout):
		err = fmt.Errorf("embedded NATS server is not ready after %s: %s", startTimeout, s.log.last())
	case !srv.JetStreamEnabled():
		err = fmt.Errorf("embedded NATS server cannot use its store %s: %s", s.dir, s.log.last())
	default:
		s.mu.Lock()
		s.srv = srv
		s.mu.Unlock()
		return nil
	}
	srv.Shutdown()
	srv.WaitForShutdown()
	return err
}

// removeProbe removes the empty file with which nats-server tests at its start
// whether the store is writable. A kill at that moment leaves the file behind. The
// next server would treat it as an account and stay unhealthy (2.15.2).
func removeProbe(dir string) error {
	dir = filepath.Join(dir, server.JetStreamStoreDir)
	list, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("BRIDGE_DATA_DIR: %w", err)
	}
	for _, e := range list {
		if !strings.HasPrefix(e.Name(), "_test_") {
			continue
		}
		if info, err := e.Info(); err != nil || !info.Mode().IsRegular() || info.Size() > 0 {
			continue // not that file
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("BRIDGE_DATA_DIR: %w", err)
		}
	}
	return nil
}

func (s *Server) current() *server.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.srv
}

// InProcessConn connects to the server without a socket. It implements
// nats.InProcessConnProvider and works again after [Server.Revive].
func (s *Server) InProcessConn() (net.Conn, error) { return s.current().InProcessConn() }

// ClientURL returns the URL for other programs.
func (s *Server) ClientURL() string { return s.current().ClientURL() }

// Addr returns the address that the server listens on, or nil.
func (s *Server) Addr() net.Addr { return s.current().Addr() }

// URL returns the URL for other programs on this machine. It needs a fixed port.
func (o Options) URL() (string, error) {
	opts, _, err := o.server()
	if err != nil {
		return "", err
	}
	host, port := opts.Host, opts.Port
	switch {
	case opts.DontListen || port < 0:
		return "", errors.New("the embedded NATS server does not listen on a fixed port; set NATS_URL")
	case port == 0:
		port = server.DEFAULT_PORT
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "nats://" + net.JoinHostPort(host, strconv.Itoa(port)), nil
}

// Rehearse starts a server with the configuration file's users and permissions, to
// test them. The server does not listen. It stores in dir, a temporary folder.
func (o Options) Rehearse(dir string) (*server.Server, error) {
	opts, secrets, err := o.server()
	if err != nil {
		return nil, err
	}
	opts.StoreDir, opts.DontListen, opts.NoLog = dir, true, true
	opts.HTTPPort, opts.HTTPSPort, opts.PortsFileDir, opts.PidFile = 0, 0, "", ""
	opts.MQTT, opts.Websocket = server.MQTTOpts{}, server.WebsocketOpts{}
	opts.LeafNode, opts.Cluster, opts.Gateway = server.LeafNodeOpts{}, server.ClusterOpts{}, server.GatewayOpts{}
	opts.Routes = nil
	srv, err := server.NewServer(opts)
	if err != nil {
		return nil, o.refused(err, secrets)
	}
	srv.Start()
	if !srv.ReadyForConnections(10 * time.Second) {
		srv.Shutdown()
		return nil, errors.New("the server does not start")
	}
	return srv, nil
}

// refused returns the error for options that nats-server does not accept.
func (o Options) refused(err error, secrets []string) error {
	if o.Config == "" {
		return fmt.Errorf("embedded NATS server: %w", err)
	}
	return &ConfigError{[]string{masked(err.Error(), secrets)}}
}

// ServerOptions returns the nats-server options: those of the configuration file, or
// those for the address and the folder.
func (o Options) ServerOptions() (*server.Options, error) {
	opts, _, err := o.server()
	return opts, err
}

// server returns the nats-server options, and the texts in them that errors and log
// lines must not contain.
func (o Options) server() (opts *server.Options, secrets []string, err error) {
	opts = &server.Options{}
	if o.Config != "" {
		if opts, secrets, err = load(o.Config); err != nil {
			return nil, nil, err
		}
	} else {
		host, port, err := net.SplitHostPort(o.Addr)
		if err != nil {
			return nil, nil, fmt.Errorf("BRIDGE_EMBEDDED_ADDR: %w", err)
		}
		if opts.Port, err = strconv.Atoi(port); err != nil {
			return nil, nil, fmt.Errorf("BRIDGE_EMBEDDED_ADDR: port %q is not a number", port)
		}
		if opts.Port == 0 {
			opts.Port = server.RANDOM_PORT
		}
		opts.Host = host
	}
	opts.NoSigs = true
	opts.JetStream = true
	if opts.ServerName == "" {
		opts.ServerName = o.Name
	}
	if opts.StoreDir == "" {
		opts.StoreDir = o.Dir
	}
	dir, err := filepath.Abs(opts.StoreDir)
	if err != nil {
		return nil, nil, fmt.Errorf("BRIDGE_DATA_DIR: %w", err)
	}
	opts.StoreDir = dir
	return opts, secrets, nil
}

// listenable returns an error if the server's address is in use. nats-server itself
// would end the process.
func listenable(opts *server.Options) error {
	if opts.Port <= 0 || opts.DontListen {
		return nil
	}
	addr := net.JoinHostPort(opts.Host, strconv.Itoa(opts.Port))
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	if err != nil {
		return fmt.Errorf("embedded NATS server cannot listen on %s (another server? set BRIDGE_EMBEDDED_ADDR, or NATS_URL to use that one): %w", addr, err)
	}
	return l.Close()
}

// Dir returns the folder of the store.
func (s *Server) Dir() string { return s.dir }

// Trouble returns in one sentence the reason that the server does not store
// messages, or "" if it does. A server does not recover by itself after a failed
// write, or after it has reached its limit, which is set at the start. Call
// [Server.Revive] when [Server.Room] returns true. It takes up to three seconds if the
// server does not store, and returns "" if ctx is cancelled meanwhile.
func (s *Server) Trouble(ctx context.Context) string {
	srv := s.current()
	if !srv.JetStreamEnabled() {
		return "the embedded server has disabled JetStream: " + s.room()
	}
	if text := lastingError(ctx, func() string { return srv.Healthz(nil).Error }); text != "" {
		return "the embedded server cannot store: " + text + "; " + s.room()
	}
	if s.full(srv) {
		return "the embedded server's store is full: " + s.room()
	}
	return ""
}

// lastingError returns the error of a check that fails for three seconds on end, or "".
// The server takes a stream that is being created or deleted for one that it could not
// recover, for as long as the disk needs. If ctx is cancelled meanwhile, the result is "".
func lastingError(ctx context.Context, check func() string) (text string) {
	const every, most = 50 * time.Millisecond, 60
	for range most {
		if text = check(); text == "" {
			return ""
		}
		select {
		case <-ctx.Done():
			return ""
		case <-time.After(every):
		}
	}
	return text
}

// full reports whether the store has reached its limit.
func (s *Server) full(srv *server.Server) bool {
	limit := s.limit.Load()
	if limit == 0 {
		return false
	}
	info, err := srv.Jsz(nil)
	return err == nil && int64(info.Store) >= limit-limit/100
}

// Room reports whether the disk has enough free space for a restart to help.
func (s *Server) Room() bool {
	now := storeLimit(s.dir)
	if now == 0 {
		return true // unknown
	}
	if s.full(s.current()) {
		return now > s.limit.Load()+minRoom
	}
	return freeBytes(s.dir) > minRoom
}

// minRoom is the minimum of additional free space for a restart.
const minRoom = 2 << 20

func (s *Server) room() string {
	const mib = 1 << 20
	return fmt.Sprintf("the disk of %s has %d MiB free; free some space or shorten BRIDGE_RETENTION, then the bridge restarts it", s.dir, freeBytes(s.dir)/mib)
}

// storeLimit returns the size limit of the store: its present size plus three
// quarters of the free space, or 0 if unknown. nats-server's default ignores the
// present size, so it cannot open a large store again on a nearly full disk.
func storeLimit(dir string) int64 {
	free := freeBytes(dir)
	if free < 0 {
		return 0
	}
	var used int64
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() { // a file that is gone does not count
			if info, err := e.Info(); err == nil {
				used += info.Size()
			}
		}
		return nil
	})
	return used + free/4*3
}

// Revive restarts a server that no longer stores messages. Clients reconnect by
// themselves.
func (s *Server) Revive() error {
	s.reviver.Lock()
	defer s.reviver.Unlock()
	if s.stopped {
		return errors.New("embedded NATS server: stopped")
	}
	old := s.current()
	addr, _ := old.Addr().(*net.TCPAddr)
	old.Shutdown()
	old.WaitForShutdown()
	opts, _, err := s.opts.server()
	if err != nil {
		return err
	}
	if addr != nil && opts.Port == server.RANDOM_PORT {
		opts.Port = addr.Port
	}
	return s.start(opts)
}

// Stop shuts the server down and waits until its files are closed.
func (s *Server) Stop() error {
	s.reviver.Lock()
	defer s.reviver.Unlock()
	s.stopped = true
	srv := s.current()
	srv.Shutdown()
	srv.WaitForShutdown()
	return s.unlock()
}

func (s *Server) unlock() error {
	if s.lock == nil {
		return nil
	}
	return s.lock.Close()
}
