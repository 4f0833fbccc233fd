package preflight

import (
	"context"
	"os"

	"plaspy-bridge/publisher"
)

// rehearse finds out whether an embedded server with a configuration of its own
// lets the bridge in, and do what it has to: on a server after the same file that
// listens nowhere and stores in a temporary folder, since a bridge may be using
// the real one.
func (c *check) rehearse(ctx context.Context) {
	const what = "BRIDGE_EMBEDDED_CONFIG"
	dir, err := os.MkdirTemp("", "plaspy-bridge-check-")
	if err != nil {
		c.say(Warn, what, "not tried: "+err.Error(), "make the folder for temporary files writable")
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	srv, err := c.cfg.EmbeddedOptions().Rehearse(dir)
	if err != nil {
		c.refused(err)
		return
	}
	defer func() { srv.Shutdown(); srv.WaitForShutdown() }()
	conn := c.connect(ctx, c.cfg.ConnOptions("plaspy-bridge check"), "NATS_", srv)
	if conn == nil {
		return
	}
	defer func() { _ = conn.Shut(0) }()
	js, err := conn.OpenJetStream()
	if err != nil {
		c.say(Fail, what, err.Error(), "report this: it depends on nothing that was set")
		return
	}
	b := &broker{check: c, conn: conn, js: js, subjects: publisher.Subjects(c.cfg.Prefix), whose: "bridge"}
	if b.replies() && b.jetStream(ctx) {
		b.permissions(ctx, func(publisher.Permission) bool { return false })
	}
	c.queries(ctx, srv)
}
