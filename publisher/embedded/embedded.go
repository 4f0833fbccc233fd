// Package embedded runs a NATS server with JetStream inside the process, for
// those who bring none of their own. It listens where it is told to, so that
// other programs can subscribe, and keeps its streams in files.
package embedded

import (
	"errors"
	"fmt"
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

// startTimeout is how long the server may take to be ready, the recovery of a
// large store included.
const startTimeout = 60 * time.Second

// Options say where the server listens and stores.
type Options struct {
	// Addr is host:port; port 0 takes a free one. Ignored where Config is set.
	Addr string
	// Dir is the folder of the store; it is created. One process at a time may
	// use it. A configuration file that names a store of its own wins.
	Dir string
	// Config is a nats-server configuration file to follow instead: accounts,
	// TLS, MQTT, leaf nodes. JetStream is turned on where it leaves it out.
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

	mu  sync.Mutex
	srv *server.Server
}

// Start starts a server and waits until it takes connections. Its errors say
// what to change: the address in use, the store in use or not writable, the
// configuration file wrong. Stop it with [Server.Stop].
func Start(o Options, log *slog.Logger) (*Server, error) {
	opts, err := o.server()
	if err != nil {
		return nil, err
	}
	s := &Server{opts: o, dir: opts.StoreDir, log: &logger{log: log.With("component", "nats-server")}}
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
	srv, err := server.NewServer(opts)
	if err != nil {
		return fmt.Errorf("embedded NATS server: %w", err)
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

func (s *Server) current() *server.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.srv
}

// InProcessConn connects to the server without a socket; it makes a Server a
// [nats.InProcessConnProvider] that stays good across [Server.Revive].
func (s *Server) InProcessConn() (net.Conn, error) { return s.current().InProcessConn() }

// ClientURL is where other programs reach the server.
func (s *Server) ClientURL() string { return s.current().ClientURL() }

// Addr is the address that the server listens on, or nil.
func (s *Server) Addr() net.Addr { return s.current().Addr() }

func (o Options) server() (*server.Options, error) {
	opts := &server.Options{}
	if o.Config != "" {
		var err error
		if opts, err = server.ProcessConfigFile(o.Config); err != nil {
			return nil, fmt.Errorf("BRIDGE_EMBEDDED_CONFIG: %w", err)
		}
	} else {
		host, port, err := net.SplitHostPort(o.Addr)
		if err != nil {
			return nil, fmt.Errorf("BRIDGE_EMBEDDED_ADDR: %w", err)
		}
		if opts.Port, err = strconv.Atoi(port); err != nil {
			return nil, fmt.Errorf("BRIDGE_EMBEDDED_ADDR: port %q is not a number", port)
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
		return nil, fmt.Errorf("BRIDGE_DATA_DIR: %w", err)
	}
	opts.StoreDir = dir
	return opts, nil
}

// listenable finds out before the server does, which would end the process,
// whether its address is free.
func listenable(opts *server.Options) error {
	if opts.Port <= 0 || opts.DontListen {
		return nil
	}
	addr := net.JoinHostPort(opts.Host, strconv.Itoa(opts.Port))
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("embedded NATS server cannot listen on %s (another server? set BRIDGE_EMBEDDED_ADDR, or NATS_URL to use that one): %w", addr, err)
	}
	return l.Close()
}

// Dir is the folder of the store.
func (s *Server) Dir() string { return s.dir }

// Trouble tells in one sentence why the server's JetStream does not work, or ""
// while it does. A server whose disk is full turns JetStream off for good;
// [Server.Revive] brings it back once there is room.
func (s *Server) Trouble() string {
	if s.current().JetStreamEnabled() {
		return ""
	}
	return fmt.Sprintf("the embedded server has turned JetStream off, most likely because the disk of %s is full%s: make room, it then recovers by itself", s.dir, free(s.dir))
}

// Revive restarts a server whose JetStream has turned itself off. Clients come
// back by themselves.
func (s *Server) Revive() error {
	old := s.current()
	addr, _ := old.Addr().(*net.TCPAddr)
	old.Shutdown()
	old.WaitForShutdown()
	opts, err := s.opts.server()
	if err != nil {
		return err
	}
	if addr != nil && opts.Port == server.RANDOM_PORT {
		opts.Port = addr.Port
	}
	return s.start(opts)
}

// Stop shuts the server down and waits for its files to be closed.
func (s *Server) Stop() error {
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

// logger hands the server's own lines on. Its chatter at start is for
// debugging; what it warns of is the operator's.
type logger struct {
	log   *slog.Logger
	error atomic.Pointer[string]
}

func (l *logger) Noticef(format string, v ...any) { l.log.Debug(line(format, v)) }
func (l *logger) Debugf(format string, v ...any)  { l.log.Debug(line(format, v)) }
func (l *logger) Tracef(format string, v ...any)  { l.log.Debug(line(format, v)) }
func (l *logger) Warnf(format string, v ...any)   { l.log.Warn(line(format, v)) }
func (l *logger) Errorf(format string, v ...any) {
	text := line(format, v)
	l.error.Store(&text)
	l.log.Error(text)
}

// Fatalf does not end the process: Start reports it.
func (l *logger) Fatalf(format string, v ...any) { l.Errorf(format, v...) }

func (l *logger) last() string {
	if s := l.error.Load(); s != nil {
		return *s
	}
	return "no reason given"
}

func line(format string, v []any) string { return strings.TrimSpace(fmt.Sprintf(format, v...)) }
