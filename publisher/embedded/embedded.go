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
	*server.Server

	dir  string
	lock *os.File
}

// Start starts a server and waits until it takes connections. Its errors say
// what to change: the address in use, the store in use or not writable, the
// configuration file wrong. Stop it with [Server.Stop].
func Start(o Options, log *slog.Logger) (*Server, error) {
	opts, err := o.server()
	if err != nil {
		return nil, err
	}
	if err := listenable(opts); err != nil {
		return nil, err
	}
	s := &Server{dir: opts.StoreDir}
	if s.lock, err = lockDir(opts.StoreDir); err != nil {
		return nil, err
	}
	s.Server, err = server.NewServer(opts)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("embedded NATS server: %w", err), s.unlock())
	}
	l := &logger{log: log.With("component", "nats-server")}
	s.SetLoggerV2(l, false, false, false)
	s.Server.Start()
	if !s.ReadyForConnections(startTimeout) {
		s.Server.Shutdown()
		s.WaitForShutdown()
		return nil, errors.Join(fmt.Errorf("embedded NATS server is not ready after %s: %s", startTimeout, l.last()), s.unlock())
	}
	if !s.JetStreamEnabled() {
		s.Server.Shutdown()
		s.WaitForShutdown()
		return nil, errors.Join(fmt.Errorf("embedded NATS server cannot use its store %s: %s", opts.StoreDir, l.last()), s.unlock())
	}
	return s, nil
}

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
// [Server.Stop] and a new [Start] bring it back once there is room.
func (s *Server) Trouble() string {
	if s.JetStreamEnabled() {
		return ""
	}
	return fmt.Sprintf("the embedded server has turned JetStream off, most likely because the disk of %s is full%s: make room", s.dir, free(s.dir))
}

// Stop shuts the server down and waits for its files to be closed.
func (s *Server) Stop() error {
	s.Shutdown()
	s.WaitForShutdown()
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
	error lastLine
}

func (l *logger) Noticef(format string, v ...any) { l.log.Debug(line(format, v)) }
func (l *logger) Debugf(format string, v ...any)  { l.log.Debug(line(format, v)) }
func (l *logger) Tracef(format string, v ...any)  { l.log.Debug(line(format, v)) }
func (l *logger) Warnf(format string, v ...any)   { l.log.Warn(line(format, v)) }
func (l *logger) Errorf(format string, v ...any) {
	l.error.set(line(format, v))
	l.log.Error(line(format, v))
}

// Fatalf does not end the process: Start reports it.
func (l *logger) Fatalf(format string, v ...any) { l.Errorf(format, v...) }

func (l *logger) last() string {
	if s := l.error.get(); s != "" {
		return s
	}
	return "no reason given"
}

func line(format string, v []any) string { return strings.TrimSpace(fmt.Sprintf(format, v...)) }
