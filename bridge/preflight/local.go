package preflight

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/nats-io/nats-server/v2/server"

	"plaspy-bridge/bridge/ops"
	"plaspy-bridge/bridge/trace"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/embedded"
)

const (
	tightSpace = 1 << 30   // bytes: room for about a million events
	noSpace    = 100 << 20 // bytes
)

// httpPort checks whether the bridge can serve health and metrics.
func (c *check) httpPort(ctx context.Context) {
	const item = "BRIDGE_HTTP_ADDR"
	if c.cfg.HTTPAddr == "" {
		c.say(Warn, item, "empty: the bridge serves neither health nor metrics", "set an address to see problems")
		return
	}
	if c.cfg.HTTPToken == "" && !ops.Loopback(c.cfg.HTTPAddr) {
		c.say(Warn, "live view", "disabled: "+c.cfg.HTTPAddr+" is not on loopback, and BRIDGE_HTTP_TOKEN is not set", "set BRIDGE_HTTP_TOKEN to enable it")
	}
	err := free(ctx, c.cfg.HTTPAddr)
	switch {
	case err == nil:
		c.ok(item, "%s is free", c.cfg.HTTPAddr)
	case errors.Is(err, syscall.EADDRINUSE) && c.alive(ctx) && c.cfg.Embedded() && inUse(c.cfg.DataDir):
		c.ok(item, "the running bridge listens on %s", c.cfg.HTTPAddr)
	case errors.Is(err, syscall.EADDRINUSE) && c.alive(ctx):
		c.runningBridge(ctx)
	case errors.Is(err, syscall.EADDRINUSE):
		c.say(Fail, item, "another program listens on "+c.cfg.HTTPAddr, "stop it, or set BRIDGE_HTTP_ADDR to another port")
	default:
		c.say(Fail, item, err.Error(), "set an address that this machine has")
	}
}

// runningBridge reports the readiness of a bridge that runs already. It knows
// problems that check cannot detect, such as a full store.
func (c *check) runningBridge(ctx context.Context) {
	const item = "BRIDGE_HTTP_ADDR"
	ctx, cancel := c.limited(ctx)
	defer cancel()
	if err := ops.Ask(ctx, c.cfg.HTTPAddr, false); err != nil {
		c.say(Fail, item, fmt.Sprintf("a bridge runs on %s, and its /readyz reports: %s", c.cfg.HTTPAddr, reason(ctx, err)),
			"solve that problem; if it is another bridge, set another address")
		return
	}
	c.ok(item, "a bridge runs on %s and is ready; another one on this machine needs another address", c.cfg.HTTPAddr)
}

// alive reports whether a bridge listens on the HTTP address.
func (c *check) alive(ctx context.Context) bool {
	ctx, cancel := c.limited(ctx)
	defer cancel()
	return ops.Ask(ctx, c.cfg.HTTPAddr, true) == nil
}

// collector checks whether the collector of traces can be reached. It prints only the
// host, because the URL may contain a password.
func (c *check) collector(ctx context.Context) {
	const item = "traces"
	endpoint := trace.Endpoint()
	u, err := url.Parse(endpoint)
	if endpoint == "" || err != nil {
		return // config.Load reports a malformed URL
	}
	port := cmp.Or(u.Port(), "80")
	if u.Port() == "" && u.Scheme == "https" {
		port = "443"
	}
	ctx, cancel := c.limited(ctx)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		c.say(Warn, item, fmt.Sprintf("the collector cannot be reached: %s", reason(ctx, err)), "start it, or correct OTEL_EXPORTER_OTLP_ENDPOINT; only traces are lost")
		return
	}
	_ = conn.Close()
	c.ok(item, "the collector %s can be reached", u.Host)
}

// free returns an error if addr cannot be listened on.
func free(ctx context.Context, addr string) error {
	l, err := ops.Listen(ctx, addr)
	if err != nil {
		return err
	}
	return l.Close()
}

// embedded checks the embedded server's configuration, store and address. It does
// not start that server, because a bridge may be using the store.
func (c *check) embedded(ctx context.Context) {
	dir, addr := c.cfg.DataDir, c.cfg.EmbeddedAddr
	var o *server.Options
	if c.cfg.EmbeddedConfig != "" {
		var err error
		if o, err = c.cfg.EmbeddedOptions().ServerOptions(); err != nil {
			c.refused(err)
			return
		}
		c.ok("BRIDGE_EMBEDDED_CONFIG", "can be read")
		c.rehearse(ctx)
		dir, addr = o.StoreDir, ""
		if o.Port > 0 && !o.DontListen {
			addr = net.JoinHostPort(o.Host, strconv.Itoa(o.Port))
		}
	}
	if open(o, addr) {
		c.say(Warn, "embedded NATS", addr+" is not on loopback and requires no login: the whole network can read positions and send messages to post",
			"set BRIDGE_EMBEDDED_ADDR to 127.0.0.1:4222, or BRIDGE_EMBEDDED_CONFIG to a file with users, as deploy/nats.conf")
	}
	if inUse(dir) {
		c.running(ctx, dir)
	} else {
		c.writable(dir)
		c.listens(ctx, addr)
	}
	c.space(dir)
	c.embeddedDurability(o)
}

// open reports whether the embedded server is reachable without a login.
func open(o *server.Options, addr string) bool {
	if addr == "" || ops.Loopback(addr) {
		return false
	}
	if o == nil {
		return true
	}
	return len(o.Users)+len(o.Nkeys)+len(o.TrustedOperators) == 0 && o.Username == "" && o.Authorization == "" && !o.TLSVerify && o.AuthCallout == nil
}

// refused reports a configuration file that the embedded server does not accept.
func (c *check) refused(err error) {
	const item = "BRIDGE_EMBEDDED_CONFIG"
	if wrong, ok := errors.AsType[*embedded.ConfigError](err); ok {
		c.say(Fail, item, wrong.Problem(), "correct the file")
		return
	}
	c.say(Fail, item, err.Error(), "correct the file")
}

// running reports a store that another process uses, most likely the bridge that
// has this configuration.
func (c *check) running(ctx context.Context, dir string) {
	const item = "embedded store"
	if c.cfg.HTTPAddr == "" {
		c.say(Warn, item, dir+" is in use by another process", "ignore this if it is the bridge; a second bridge needs its own folder")
		return
	}
	ctx, cancel := c.limited(ctx)
	defer cancel()
	if err := ops.Ask(ctx, c.cfg.HTTPAddr, false); err != nil {
		c.say(Fail, item, fmt.Sprintf("%s is in use by another process, and /readyz on %s reports: %s", dir, c.cfg.HTTPAddr, reason(ctx, err)),
			"solve that problem; if it is another program, set BRIDGE_DATA_DIR to another folder")
		return
	}
	c.ok(item, "%s is in use by the bridge on %s, which is ready", dir, c.cfg.HTTPAddr)
}

// writable checks whether the folder, or its nearest existing parent, is writable.
func (c *check) writable(dir string) {
	const item = "embedded store"
	at, err := existing(dir)
	if err == nil {
		var f *os.File
		if f, err = os.CreateTemp(at, ".plaspy-bridge-check-"); err == nil {
			err = errors.Join(f.Close(), os.Remove(f.Name()))
		}
	}
	if err != nil {
		c.say(Fail, item, err.Error(), "make the folder writable for this user, or set BRIDGE_DATA_DIR to another one")
		return
	}
	if at == filepath.Clean(dir) {
		c.ok(item, "%s is writable and not in use", dir)
		return
	}
	c.ok(item, "%s does not exist yet and can be created", dir)
}

// existing returns the folder, or its nearest existing parent.
func existing(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for at := abs; ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		switch {
		case err == nil && !info.IsDir():
			return "", fmt.Errorf("%s is not a folder", at)
		case err == nil && at == abs:
			return filepath.Clean(dir), nil
		case err == nil:
			return at, nil
		case !errors.Is(err, os.ErrNotExist) || at == filepath.Dir(at):
			return "", err
		}
	}
}

func (c *check) listens(ctx context.Context, addr string) {
	const item = "embedded NATS"
	if addr == "" {
		return
	}
	switch err := free(ctx, addr); {
	case err == nil:
		c.ok(item, "%s is free to listen on", addr)
	case errors.Is(err, syscall.EADDRINUSE):
		c.say(Fail, item, "another program listens on "+addr, "set NATS_URL to use that server, or BRIDGE_EMBEDDED_ADDR to another port")
	default:
		c.say(Fail, item, err.Error(), "set BRIDGE_EMBEDDED_ADDR to an address that this machine has")
	}
}

func (c *check) space(dir string) {
	const item = "disk"
	at, err := existing(dir)
	if err != nil {
		return // writable has reported it
	}
	n, known := available(at)
	switch text := fmt.Sprintf("%d MiB free for %s", n>>20, dir); {
	case !known:
	case n < noSpace:
		c.say(Fail, item, text, "free some space: a server stops storing if its disk is full")
	case n < tightSpace:
		c.say(Warn, item, text, "free some space, or shorten BRIDGE_RETENTION")
	default:
		c.ok(item, "%s", text)
	}
}

// rehearse checks whether the bridge's user can log in with BRIDGE_EMBEDDED_CONFIG
// and has its permissions. It starts a second server with that configuration, which
// does not listen and stores in a temporary folder, because a bridge may be using
// the real store.
func (c *check) rehearse(ctx context.Context) {
	const item = "BRIDGE_EMBEDDED_CONFIG"
	dir, err := os.MkdirTemp("", "plaspy-bridge-check-")
	if err != nil {
		c.say(Warn, item, "not tested: "+err.Error(), "make the folder for temporary files writable")
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	srv, err := c.cfg.EmbeddedOptions().Rehearse(dir)
	if err != nil {
		c.refused(err)
		return
	}
	defer func() { srv.Shutdown(); srv.WaitForShutdown() }()
	b := c.login(ctx, srv)
	if b == nil {
		return
	}
	defer func() { _ = b.conn.Shut(0) }()
	if b.replies() && b.jetStream(ctx) {
		b.permissions(ctx, func(publisher.Permission) bool { return false })
	}
	c.queries(ctx, srv)
}
