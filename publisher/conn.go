package publisher

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	"github.com/prometheus/client_golang/prometheus"
)

// ConnOptions configure a [Conn]. All of them but InProcess have the same meaning as
// in the nats CLI. Files are read at every connect, so a rotated file needs no
// restart, except that NKey must keep its public key.
type ConnOptions struct {
	URL         string                     // comma separated; ignored if InProcess is set
	InProcess   nats.InProcessConnProvider // an embedded server
	Name        string                     // shown in the server's connection list
	Creds       string                     // a credentials file (JWT and seed)
	NKey        string                     // a seed file
	User        string                     // a token if Password is empty
	Password    string                     //
	Token       string                     //
	CA          string                     // PEM file of trusted certificate authorities
	Cert, Key   string                     // PEM files of a client certificate
	TLSFirst    bool                       // TLS handshake before the server's INFO
	InboxPrefix string                     // prefix of reply subjects; empty means _INBOX
	Domain      string                     // JetStream domain; empty means the server's own
	OnConnect   func()                     // called after every connect; must not block
	// OnServer is called before OnConnect with the URL of the server, without a password,
	// and the number that the server gave to the connection; must not block.
	OnServer func(url string, client uint64)
	OnClosed func(err error) // called if the client closes without a call of Shut
}

// Conn is a connection to NATS that reconnects without a limit, and reports its
// state for a health check. It is safe for concurrent use.
type Conn struct {
	*nats.Conn

	lastError atomic.Pointer[ConnError]
	closing   atomic.Bool
	log       *slog.Logger
	opts      ConnOptions
	downSince atomic.Int64  // Unix nanoseconds, 0 while connected
	up        chan struct{} // closed after the first connect
	first     sync.Once     // closes up

	mu     sync.Mutex
	logged map[string]bool // guarded by mu: reasons logged since the last connect
}

// ConnError is the last asynchronous error of a connection, such as a
// permissions violation, which no request returns.
type ConnError struct {
	Err error
	At  time.Time
}

// ErrCredentials means that a file with NATS credentials cannot be used.
var ErrCredentials = errors.New("credentials cannot be used")

// Connection limits. A dead peer is noticed within three ping intervals.
const (
	pingInterval = 5 * time.Second
	maxPingsOut  = 2
	dialTimeout  = 5 * time.Second
	maxReconnect = 2 * time.Second
)

// Connect tries every server once and returns. It fails only if the options are
// invalid (a missing file, a malformed URL). If no server is reachable, the
// connection is made in the background. Close it with [Conn.Shut].
func Connect(o ConnOptions, log *slog.Logger, reg prometheus.Registerer) (*Conn, error) {
	c := &Conn{log: log, opts: o, up: make(chan struct{}), logged: map[string]bool{}}
	c.downSince.Store(time.Now().UnixNano())
	opts := []nats.Option{
		nats.Name(o.Name),
		nats.Timeout(dialTimeout),
		nats.PingInterval(pingInterval),
		nats.MaxPingsOutstanding(maxPingsOut),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.CustomReconnectDelay(reconnectDelay),
		nats.IgnoreAuthErrorAbort(),
		// A publish without a connection fails at once and is retried with
		// its expected sequence. A buffer would only delay that.
		nats.ReconnectBufSize(-1),
		nats.ConnectHandler(c.connected),
		nats.ReconnectHandler(c.connected),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { c.disconnected(err) }),
		nats.ErrorHandler(c.asyncError),
		nats.ClosedHandler(func(nc *nats.Conn) { c.closed(nc.LastError()) }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { c.unreachable(err) }),
	}
	auth, err := o.options()
	if err != nil {
		return nil, err
	}
	nc, err := nats.Connect(o.URL, append(opts, auth...)...)
	if err != nil {
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	c.Conn = nc
	if err := nc.LastError(); err != nil && !nc.IsConnected() {
		c.unreachable(err)
	}
	if reg != nil {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "plaspy_bridge_nats_connected", Help: "1 while connected to NATS, else 0.",
		}, func() float64 {
			if nc.IsConnected() {
				return 1
			}
			return 0
		}))
	}
	return c, nil
}

// ConnectContext is [Connect], but returns as soon as ctx is cancelled, even if a
// server does not answer.
func ConnectContext(ctx context.Context, o ConnOptions, log *slog.Logger, reg prometheus.Registerer) (*Conn, error) {
	type result struct {
		conn *Conn
		err  error
	}
	made := make(chan result, 1)
	go func() {
		conn, err := Connect(o, log, reg)
		made <- result{conn, err}
	}()
	select {
	case r := <-made:
		return r.conn, r.err
	case <-ctx.Done():
		go func() {
			if r := <-made; r.err == nil {
				_ = r.conn.Shut(0)
			}
		}()
		return nil, fmt.Errorf("connect to NATS: %w", context.Cause(ctx))
	}
}

// OpenJetStream returns a JetStream context for the connection's domain.
func (c *Conn) OpenJetStream(opts ...jetstream.JetStreamOpt) (jetstream.JetStream, error) {
	if c.opts.Domain != "" {
		return jetstream.NewWithDomain(c.Conn, c.opts.Domain, opts...)
	}
	return jetstream.New(c.Conn, opts...)
}

// InboxPrefix returns the prefix of reply subjects.
func (c *Conn) InboxPrefix() string { return cmp.Or(c.opts.InboxPrefix, DefaultInboxPrefix) }

// Domain returns the JetStream domain of the connection, or "".
func (c *Conn) Domain() string { return c.opts.Domain }

// DefaultInboxPrefix is the inbox prefix of a client that sets none.
const DefaultInboxPrefix = "_INBOX"

func (o ConnOptions) options() ([]nats.Option, error) {
	var opts []nats.Option
	if o.InProcess != nil {
		opts = append(opts, nats.InProcessServer(inProcess{o.InProcess}))
	} else if o.TLSFirst {
		opts = append(opts, nats.TLSHandshakeFirst())
	}
	if o.InboxPrefix != "" {
		opts = append(opts, nats.CustomInboxPrefix(o.InboxPrefix))
	}
	if o.Creds != "" {
		if err := checkCreds(o.Creds); err != nil {
			return nil, fmt.Errorf("%w: NATS_CREDS: %w", ErrCredentials, err)
		}
		opts = append(opts, nats.UserCredentials(o.Creds))
	}
	if o.NKey != "" {
		opt, err := nats.NkeyOptionFromSeed(o.NKey)
		if err != nil {
			return nil, fmt.Errorf("%w: NATS_NKEY: %w", ErrCredentials, err)
		}
		opts = append(opts, opt)
	}
	switch {
	case o.Token != "":
		opts = append(opts, nats.Token(o.Token))
	case o.User != "" && o.Password == "":
		opts = append(opts, nats.Token(o.User))
	case o.User != "":
		opts = append(opts, nats.UserInfo(o.User, o.Password))
	}
	if o.CA != "" {
		opts = append(opts, nats.RootCAs(o.CA))
	}
	if o.Cert != "" {
		if _, err := tls.LoadX509KeyPair(o.Cert, o.Key); err != nil {
			return nil, fmt.Errorf("%w: NATS_CERT and NATS_KEY: %w", ErrCredentials, err)
		}
		opts = append(opts, nats.ClientCert(o.Cert, o.Key))
	}
	return opts, nil
}

// checkCreds returns an error if a credentials file lacks a user's JWT or seed. The
// client reads the file again at every connect, and would retry for ever.
func checkCreds(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	defer clear(data)
	if token, err := nkeys.ParseDecoratedJWT(data); err != nil || strings.Count(token, ".") != 2 {
		return errors.New("the file has no user JWT")
	}
	pair, err := nkeys.ParseDecoratedUserNKey(data)
	if err != nil {
		return err
	}
	pair.Wipe()
	return nil
}

// reconnectDelay adds jitter, so that many bridges do not reconnect at once.
func reconnectDelay(attempts int) time.Duration {
	d := min(100*time.Millisecond<<min(attempts, 5), maxReconnect)
	return d/2 + rand.N(d/2)
}

func (c *Conn) connected(nc *nats.Conn) {
	down := time.Duration(0)
	if since := c.downSince.Swap(0); since != 0 {
		down = time.Since(time.Unix(0, since))
	}
	c.lastError.Store(nil)
	c.mu.Lock()
	clear(c.logged)
	c.mu.Unlock()
	c.log.Info("nats connected", "server", nc.ConnectedServerName(), "version", nc.ConnectedServerVersion(), "elapsed", down.Round(time.Millisecond))
	if c.opts.OnServer != nil {
		if id, err := nc.GetClientID(); err == nil {
			c.opts.OnServer(nc.ConnectedUrlRedacted(), id)
		}
	}
	if c.opts.OnConnect != nil {
		c.opts.OnConnect()
	}
	c.first.Do(func() { close(c.up) })
}

// Up returns a channel that is closed once the connection was made for the first time,
// and OnConnect has returned.
func (c *Conn) Up() <-chan struct{} { return c.up }

func (c *Conn) disconnected(err error) {
	if c.closing.Load() {
		return
	}
	c.downSince.CompareAndSwap(0, time.Now().UnixNano())
	c.log.Warn("nats disconnected, reconnecting", "err", err)
}

// unreachable keeps the reason for a missing connection. It logs each reason once
// until the next connect, because several servers may fail for different reasons.
func (c *Conn) unreachable(err error) {
	c.lastError.Store(&ConnError{Err: err, At: time.Now()})
	const most = 16
	c.mu.Lock()
	reason := strings.ToLower(err.Error()) // the client spells a refused login in two ways
	known := c.logged[reason] || len(c.logged) >= most
	c.logged[reason] = true
	c.mu.Unlock()
	if !known && !c.closing.Load() {
		c.log.Warn("could not connect to nats, retrying", "err", err)
	}
}

func (c *Conn) closed(err error) {
	if c.closing.Load() {
		return
	}
	c.log.Error("nats client closed permanently", "err", err)
	if c.opts.OnClosed != nil {
		c.opts.OnClosed(err)
	}
}

func (c *Conn) asyncError(_ *nats.Conn, sub *nats.Subscription, err error) {
	last := c.lastError.Swap(&ConnError{Err: err, At: time.Now()})
	if last != nil && last.Err.Error() == err.Error() {
		return // logged already
	}
	attrs := []any{"err", err}
	if sub != nil {
		attrs = append(attrs, "subject", sub.Subject)
	}
	c.log.Warn("nats reported an error", attrs...)
}

// Trouble returns in one sentence the reason for a missing connection, or "" while
// connected.
func (c *Conn) Trouble() string {
	if c.IsConnected() {
		return ""
	}
	if last := c.lastError.Load(); last != nil {
		return fmt.Sprintf("not connected to NATS: %v", last.Err)
	}
	return "not connected to NATS"
}

// Denied returns the last permission violation, or "" if that was more than a minute
// ago. The request itself returns no such error: it gets no answer.
func (c *Conn) Denied() string {
	last := c.lastError.Load()
	if last == nil || !errors.Is(last.Err, nats.ErrPermissionViolation) || time.Since(last.At) > time.Minute {
		return ""
	}
	return last.Err.Error()
}

// SwitchServer connects to another server of the cluster. It returns false if none is
// known.
func (c *Conn) SwitchServer() bool {
	return len(c.Servers()) > 1 && c.ForceReconnect() == nil
}

// Shut flushes the buffer, within the timeout, and closes the connection. A timeout of
// 0 means no flush.
func (c *Conn) Shut(timeout time.Duration) error {
	c.closing.Store(true)
	defer c.Close()
	if timeout <= 0 || !c.IsConnected() {
		return nil
	}
	if err := c.FlushTimeout(timeout); err != nil {
		return fmt.Errorf("flush NATS connection: %w", err)
	}
	return nil
}

// handshakeWrites is the number of writes before the client reads the server's answer
// to its login: CONNECT and PING.
const handshakeWrites = 2

// inProcess connects to an embedded server over a pipe, which has no buffer. If the
// server refuses a login, it writes while the client still writes. Both would block
// until the server's write deadline of 10 s, and the reason would be lost. Therefore
// the writes of the handshake return at once.
type inProcess struct{ nats.InProcessConnProvider }

// InProcessConn returns one end of a new pipe to the server.
func (p inProcess) InProcessConn() (net.Conn, error) {
	conn, err := p.InProcessConnProvider.InProcessConn()
	if err != nil {
		return nil, err
	}
	return &handshake{Conn: conn, left: handshakeWrites}, nil
}

// handshake is a connection with asynchronous first writes. The order of all writes
// is kept.
type handshake struct {
	net.Conn

	mu      sync.Mutex
	left    int           // guarded by mu: remaining asynchronous writes
	pending chan struct{} // guarded by mu: closed when the last of them is done; nil without one
	failed  error         // written before pending is closed
}

// Write writes p. The first writes happen in a goroutine.
func (h *handshake) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before := h.pending
	if h.left == 0 {
		if before != nil {
			<-before
			h.pending = nil
			if h.failed != nil {
				return 0, h.failed
			}
		}
		return h.Conn.Write(p)
	}
	h.left--
	done, data := make(chan struct{}), bytes.Clone(p)
	h.pending = done
	go func() {
		defer close(done)
		if before != nil {
			<-before
		}
		if h.failed == nil {
			_, h.failed = h.Conn.Write(data)
		}
	}()
	return len(p), nil
}
