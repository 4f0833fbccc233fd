package preflight

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/query"
	"plaspy-bridge/bridge/streams"
	"plaspy-bridge/publisher"
)

// connectGrace is the time to wait for a connection after every server was tried
// once. A server may just be starting.
const connectGrace = time.Second

// broker checks a NATS server over one connection.
type broker struct {
	check    *check
	conn     *publisher.Conn
	js       jetstream.JetStream
	subjects publisher.Subjects
	part     string // the part of the bridge that uses this login
	room     *room  // nil means unknown
	absent   int    // missing streams found so far
}

// nats checks the server of NATS_URL.
func (c *check) nats(ctx context.Context) {
	b := c.login(ctx, nil)
	if b == nil {
		return
	}
	defer func() { _ = b.conn.Shut(0) }() // nothing is buffered
	if !b.version() || !b.replies() || !b.jetStream(ctx) {
		return
	}
	b.cluster()
	b.streams(ctx)
	if b.permissions(ctx, ofStreams) {
		b.replicas(ctx)
	}
	c.queries(ctx, nil)
}

// login connects as the bridge does. It returns nil if that is impossible, and reports
// the reason. inProcess is the embedded server, or nil.
func (c *check) login(ctx context.Context, inProcess nats.InProcessConnProvider) *broker {
	conn := c.connect(ctx, c.cfg.ConnOptions("plaspy-bridge check"), "NATS_", inProcess)
	if conn == nil {
		return nil
	}
	js, err := conn.OpenJetStream()
	if err != nil {
		_ = conn.Shut(0)
		c.say(Fail, "JetStream", err.Error(), "please report this: it does not depend on any setting")
		return nil
	}
	return &broker{check: c, conn: conn, js: js, subjects: publisher.Subjects(c.cfg.Prefix), part: "bridge"}
}

// ofStreams reports whether streams has checked a permission already. It does not
// look at streams that the bridge can do without.
func ofStreams(p publisher.Permission) bool {
	if p.Optional {
		return false
	}
	return p.Creates != "" || strings.HasPrefix(p.Publish, "$JS.API.STREAM.INFO.")
}

// queries checks the separate user of the query service, if one is configured.
func (c *check) queries(ctx context.Context, inProcess nats.InProcessConnProvider) {
	o, own := c.cfg.QueryOptions("plaspy-bridge check")
	if !c.cfg.Query || !own {
		return
	}
	conn := c.connect(ctx, o, "NATS_QUERY_", inProcess)
	if conn == nil {
		return
	}
	defer func() { _ = conn.Shut(0) }()
	b := &broker{check: c, conn: conn, subjects: publisher.Subjects(c.cfg.Prefix), part: "query service"}
	needs := query.Needs(b.subjects, publisher.DefaultInboxPrefix)
	b.missing(ctx, needs)
}

// connect returns nil if no server can be reached, and reports the reason.
// inProcess is the embedded server, or nil.
func (c *check) connect(ctx context.Context, o publisher.ConnOptions, variables string, inProcess nats.InProcessConnProvider) *publisher.Conn {
	const item = "NATS"
	ctx, cancel := c.limited(ctx)
	defer cancel()
	o.InProcess = inProcess
	conn, err := publisher.Connect(o, c.log, nil)
	if err != nil {
		c.say(Fail, item, err.Error(), "correct the "+variables+" variables")
		return nil
	}
	// Every server was tried once by now.
	timer := time.NewTimer(connectGrace)
	defer timer.Stop()
	select {
	case <-conn.Up():
		return conn
	case <-timer.C:
	case <-ctx.Done():
	}
	if conn.IsConnected() { // and the callback is late
		return conn
	}
	if inProcess != nil {
		c.say(Fail, item, "the server of BRIDGE_EMBEDDED_CONFIG refuses the bridge's login",
			fmt.Sprintf("set %[1]sUSER and %[1]sPASSWORD, or the other credentials that the file requires, to one of its users", variables))
	} else {
		c.say(Fail, item, trouble(conn), unreachable(conn.LastError(), variables, c.cfg.NATSURL.Reveal()))
	}
	_ = conn.Shut(0)
	return nil
}

// trouble returns the reason for a missing connection.
func trouble(conn *publisher.Conn) string {
	text := conn.Trouble()
	if err := conn.LastError(); err != nil && !strings.Contains(text, err.Error()) {
		text += ": " + err.Error()
	}
	return text
}

// unreachable returns the remedy for a failed connection.
func unreachable(err error, variables, url string) string {
	encrypted := strings.Contains(url, "tls://") || strings.Contains(url, "wss://")
	switch {
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked):
		text := fmt.Sprintf("check %[1]sCREDS, %[1]sNKEY, or %[1]sUSER and %[1]sPASSWORD", variables)
		if variables == "NATS_" {
			text += ", or NATS_TOKEN"
		}
		return text + ", as the server requires"
	case errors.Is(err, nats.ErrSecureConnRequired), errors.Is(err, nats.ErrSecureConnWanted):
		if encrypted {
			return "the server has no TLS: use nats:// in NATS_URL, or enable TLS on the server"
		}
		return "use tls:// in NATS_URL, and set NATS_CA if a private authority issued the certificate"
	case encrypted:
		return "check NATS_URL, that the server runs, NATS_CA, and NATS_TLS_FIRST, which must be true for a server with handshake_first"
	default:
		return "check NATS_URL, that the server runs, and the firewall"
	}
}

// server returns the address of the connected server. It leaves out what is before the @ in NATS_URL: without a
// colon that is a token, which nats.go's own redaction keeps.
func (b *broker) server() string {
	u, err := url.Parse(b.conn.ConnectedUrl())
	if err != nil {
		return "a server"
	}
	u.User = nil
	return u.String()
}

// version checks whether the server is new enough.
func (b *broker) version() bool {
	const item = "NATS"
	v := b.conn.ConnectedServerVersion()
	major, minor, patch, known := streams.ParseVersion(v)
	text := fmt.Sprintf("connected to %s, nats-server %s", b.server(), v)
	switch {
	case streams.TooOld(v) != nil:
		b.check.say(Fail, item, text, "upgrade the server: the bridge needs 2.11 or newer")
		return false
	case known && major == 2 && minor == 12 && (patch == 3 || patch == 4) && b.check.cfg.Inbound:
		b.check.say(Warn, item, text, "upgrade it before you give "+b.subjects.Inbound()+" replicas: this version has a bug in replicated work queues")
	case known && renamesHeaders(minor, patch) && major == 2:
		b.check.say(Warn, item, text, "upgrade it if the account has msg_trace: this version renames the header traceparent of messages, so that subscribers do not find it; the bridge reads both names")
	default:
		b.check.ok(item, "%s", text)
	}
	b.payload()
	return true
}

// renamesHeaders reports whether version 2.minor.patch renames traceparent to
// Xraceparent in an account with msg_trace.
func renamesHeaders(minor, patch int) bool { return minor == 11 || minor == 12 && patch <= 11 }

// usualPayload is nats-server's default max_payload.
const usualPayload = 1 << 20

// payload checks the server's max_payload.
func (b *broker) payload() {
	if n := b.conn.MaxPayload(); n < usualPayload {
		b.check.say(Warn, "max_payload", fmt.Sprintf("the server accepts messages of %d KiB at most", n>>10),
			"raise max_payload to 1MB: larger events are not published, and a dead letter that is too large loses its body")
	}
}

// replies checks whether this user may receive answers.
func (b *broker) replies() bool {
	need := publisher.Replies(b.conn.InboxPrefix())
	if err := b.maySubscribe(need.Subscribe); err != nil {
		b.check.say(Fail, "permissions", err.Error(), fmt.Sprintf("allow this user to subscribe to %s, or set NATS_INBOX_PREFIX to a permitted prefix: without it %s", need.Subscribe, need.Why))
		return false
	}
	return true
}

// jetStream checks the account's limits. It returns false if JetStream is unavailable.
func (b *broker) jetStream(ctx context.Context) bool {
	const item = "JetStream"
	if err := b.mayPublish("$JS.API.INFO"); err != nil {
		b.check.ok(item, "limits are unknown, because this user may not request them")
		return true
	}
	ctx, cancel := b.check.limited(ctx)
	defer cancel()
	info, err := b.js.AccountInfo(ctx)
	switch {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		b.check.say(Fail, item, "not enabled for this account", "enable it: jetstream: enabled in the account's configuration")
		return false
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, nats.ErrNoResponders):
		b.check.say(Fail, item, "not enabled on this server", "enable it: nats-server -js, or a jetstream block in its configuration")
		return false
	case err != nil:
		b.check.say(Fail, item, reason(ctx, err), "check the state of the server and of its cluster's leader")
		return false
	}
	b.limits(info)
	return true
}
