package preflight

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/nats-io/nats-server/v2/server"

	"plaspy-bridge/bridge/ops"
	"plaspy-bridge/publisher/embedded"
)

const (
	tightSpace = 1 << 30   // bytes: room for about a million events
	noSpace    = 100 << 20 // bytes
)

// httpPort looks whether health and metrics can be served.
func (c *check) httpPort(ctx context.Context) {
	const what = "BRIDGE_HTTP_ADDR"
	if c.cfg.HTTPAddr == "" {
		c.say(Warn, what, "set to nothing: neither health nor metrics are served", "set an address, so that what is wrong can be seen")
		return
	}
	if c.cfg.HTTPToken == "" && !onLoopback(c.cfg.HTTPAddr) {
		c.say(Warn, "live view", "closed: "+c.cfg.HTTPAddr+" is not on loopback, and BRIDGE_HTTP_TOKEN is not set", "set BRIDGE_HTTP_TOKEN, if it is to be seen")
	}
	err := free(ctx, c.cfg.HTTPAddr)
	switch {
	case err == nil:
		c.ok(what, "%s is free", c.cfg.HTTPAddr)
	case errors.Is(err, syscall.EADDRINUSE) && c.lives(ctx) && c.cfg.Embedded() && inUse(c.cfg.DataDir):
		c.ok(what, "%s is the running bridge's", c.cfg.HTTPAddr)
	case errors.Is(err, syscall.EADDRINUSE) && c.lives(ctx):
		c.beside(ctx)
	case errors.Is(err, syscall.EADDRINUSE):
		c.say(Fail, what, "another program listens on "+c.cfg.HTTPAddr, "stop it, or set BRIDGE_HTTP_ADDR to another port")
	default:
		c.say(Fail, what, err.Error(), "set an address that this machine has")
	}
}

// beside is about a bridge that runs already: what keeps it from its work is worth
// more than what could be tried from here, such as a store that is full.
func (c *check) beside(ctx context.Context) {
	const what = "BRIDGE_HTTP_ADDR"
	ctx, cancel := c.limited(ctx)
	defer cancel()
	if err := ops.Ask(ctx, c.cfg.HTTPAddr, false); err != nil {
		c.say(Fail, what, fmt.Sprintf("a bridge runs on %s, and its /readyz says: %s", c.cfg.HTTPAddr, reason(ctx, err)),
			"see to what it says, or if that is another bridge, set another address")
		return
	}
	c.ok(what, "a bridge runs on %s and is ready; another one on this machine needs another address", c.cfg.HTTPAddr)
}

// onLoopback reports whether only this machine reaches an address.
func onLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return true // the configuration's checks say more
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (c *check) lives(ctx context.Context) bool {
	ctx, cancel := c.limited(ctx)
	defer cancel()
	return ops.Ask(ctx, c.cfg.HTTPAddr, true) == nil
}

// free tries to listen.
func free(ctx context.Context, addr string) error {
	l, err := ops.Listen(ctx, addr)
	if err != nil {
		return err
	}
	return l.Close()
}

// embedded looks at what the embedded server will find: it is not started,
// since a bridge may be using its store.
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
		c.say(Warn, "embedded NATS", addr+" is not on loopback, and nobody has to log in: the whole network may read positions and hand in messages",
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

// open reports whether anybody on the network may use the embedded server.
func open(o *server.Options, addr string) bool {
	if addr == "" || onLoopback(addr) {
		return false
	}
	if o == nil {
		return true
	}
	return len(o.Users)+len(o.Nkeys)+len(o.TrustedOperators) == 0 && o.Username == "" && o.Authorization == "" && !o.TLSVerify && o.AuthCallout == nil
}

// refused reports a configuration file that the embedded server does not take.
func (c *check) refused(err error) {
	const what = "BRIDGE_EMBEDDED_CONFIG"
	if wrong, ok := errors.AsType[*embedded.ConfigError](err); ok {
		c.say(Fail, what, wrong.Problem(), "correct the file")
		return
	}
	c.say(Fail, what, err.Error(), "correct the file")
}

// running is about a store that another process holds: most likely the bridge
// that this check is about.
func (c *check) running(ctx context.Context, dir string) {
	const what = "embedded store"
	if c.cfg.HTTPAddr == "" {
		c.say(Warn, what, dir+" is in use by another process", "nothing, if that is the bridge; a second one wants a folder of its own")
		return
	}
	ctx, cancel := c.limited(ctx)
	defer cancel()
	if err := ops.Ask(ctx, c.cfg.HTTPAddr, false); err != nil {
		c.say(Fail, what, fmt.Sprintf("%s is in use by another process, and /readyz on %s says: %s", dir, c.cfg.HTTPAddr, reason(ctx, err)),
			"see to what it says, or if that is another program, set BRIDGE_DATA_DIR to another folder")
		return
	}
	c.ok(what, "%s is in use by the bridge on %s, which is ready", dir, c.cfg.HTTPAddr)
}

// writable looks whether the folder, or the first one above it that is there,
// can be written to.
func (c *check) writable(dir string) {
	const what = "embedded store"
	at, err := existing(dir)
	if err == nil {
		var f *os.File
		if f, err = os.CreateTemp(at, ".plaspy-bridge-check-"); err == nil {
			err = errors.Join(f.Close(), os.Remove(f.Name()))
		}
	}
	if err != nil {
		c.say(Fail, what, err.Error(), "make the folder writable for this user, or set BRIDGE_DATA_DIR to another one")
		return
	}
	if at == filepath.Clean(dir) {
		c.ok(what, "%s is writable and not in use", dir)
		return
	}
	c.ok(what, "%s is not there yet and can be made", dir)
}

// existing is the folder, or the first one above it that exists.
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
	const what = "embedded NATS"
	if addr == "" {
		return
	}
	switch err := free(ctx, addr); {
	case err == nil:
		c.ok(what, "%s is free to listen on", addr)
	case errors.Is(err, syscall.EADDRINUSE):
		c.say(Fail, what, "another program listens on "+addr, "set NATS_URL if that is the NATS server to use, or BRIDGE_EMBEDDED_ADDR to another port")
	default:
		c.say(Fail, what, err.Error(), "set BRIDGE_EMBEDDED_ADDR to an address that this machine has")
	}
}

func (c *check) space(dir string) {
	const what = "disk"
	at, err := existing(dir)
	if err != nil {
		return // told already
	}
	n, known := available(at)
	switch text := fmt.Sprintf("%d MiB free for %s", n>>20, dir); {
	case !known:
	case n < noSpace:
		c.say(Fail, what, text, "make room: a server whose disk is full stops storing")
	case n < tightSpace:
		c.say(Warn, what, text, "make room, or shorten BRIDGE_RETENTION")
	default:
		c.ok(what, "%s", text)
	}
}
