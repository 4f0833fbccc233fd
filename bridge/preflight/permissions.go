package preflight

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"plaspy-bridge/bridge/control"
	"plaspy-bridge/bridge/inbound"
	"plaspy-bridge/bridge/inbound/deadletter"
	"plaspy-bridge/bridge/inbound/echo"
	"plaspy-bridge/bridge/query"
	"plaspy-bridge/bridge/replica"
	"plaspy-bridge/bridge/streams"
	"plaspy-bridge/publisher"
)

// needs returns the permissions that the bridge's user needs with this
// configuration. Each package that uses NATS exports its own.
func (b *broker) needs() []publisher.Permission {
	s := b.subjects
	all := slices.Concat(publisher.Needs(s), replica.Needs(s), streams.Needs(s, b.check.cfg.StreamOptions()), control.Needs(s))
	if b.check.cfg.SilentAfter > 0 {
		all = append(all, publisher.NeedsSilent(s)...)
	}
	if b.check.cfg.Inbound {
		all = slices.Concat(all, inbound.Needs(s), echo.Needs(s))
	}
	if b.check.cfg.Inbound && b.check.cfg.HTTPAddr != "" {
		all = append(all, deadletter.Needs(s)...)
	}
	if _, own := b.check.cfg.QueryOptions(""); b.check.cfg.Query && !own {
		all = append(all, query.Needs(s, publisher.DefaultInboxPrefix)...)
	}
	return all
}

// permissions tests every needed permission that reported does not return true for.
// It tries an operation if that has no effect. Otherwise it compares with the
// permissions that the server reports.
//
// It returns false if the replicas' bucket cannot be read.
func (b *broker) permissions(ctx context.Context, reported func(publisher.Permission) bool) (readable bool) {
	bucket := publisher.BucketStream(b.subjects.ReplicasBucket())
	needs := slices.DeleteFunc(b.needs(), func(p publisher.Permission) bool {
		return reported(p) || p.Creates != "" && b.exists(ctx, p.Creates)
	})
	missing := b.missing(ctx, needs)
	readable = b.mayPublish("$JS.API.STREAM.INFO."+bucket) == nil
	for _, p := range missing {
		readable = readable && !strings.HasPrefix(p.Publish, "$JS.API.CONSUMER.CREATE."+bucket+".")
	}
	return readable
}

// exists reports whether a stream exists and this user may look it up.
func (b *broker) exists(ctx context.Context, stream string) bool {
	ctx, cancel := b.check.limited(ctx)
	defer cancel()
	_, err := b.js.Stream(ctx, stream)
	return err == nil
}

// missing reports and returns each needed permission that the connection's user
// does not have.
func (b *broker) missing(ctx context.Context, needs []publisher.Permission) (missing []publisher.Permission) {
	const item = "permissions"
	seen := map[string]bool{}
	allowed, known := b.userInfo(ctx)
	untried := false
	for _, p := range needs {
		key := p.Subject() + " " + p.Try
		if seen[key] || seen[p.Subject()] {
			continue // reported or tested already
		}
		seen[key] = true
		var err error
		switch {
		case p.Subscribe != "":
			err = b.maySubscribe(cmp.Or(p.Try, p.Subscribe))
		case strings.HasPrefix(p.Publish, "_") && known && allowed.Responses != nil: // allow_responses permits every reply subject
		case p.Try != "":
			err = b.mayPublish(p.Try)
		case !known:
			untried = true
		case !allowed.publish(p.Publish):
			err = errors.New("the server does not permit it")
		}
		if err == nil {
			continue
		}
		if errors.Is(err, nats.ErrTimeout) || errors.Is(err, nats.ErrConnectionClosed) {
			b.check.say(Fail, item, "NATS did not answer a test of the permissions: "+err.Error(), "check the connection, or raise PLASPY_TIMEOUT; then run this command again")
			return missing
		}
		seen[p.Subject()] = true
		missing = append(missing, p)
		level, verb := Fail, "publish"
		if p.Optional {
			level = Warn
		}
		if p.Subscribe != "" {
			verb = "subscribe"
		}
		b.check.say(level, item, err.Error(), fmt.Sprintf("allow this user to %s to %s: without it %s", verb, p.Subject(), p.Why))
	}
	switch {
	case untried:
		b.check.say(Warn, item, "the permission to publish events was not tested: a test would publish an event, and the server does not report its permissions",
			"allow this user to publish to "+userInfo+" to include it; otherwise /readyz of the running bridge reports it")
	case len(missing) == 0:
		b.check.ok(item, "the %s has all permissions that it needs", b.part)
	}
	return missing
}

// mayPublish publishes a message that has no effect and returns the permission
// violation, if any. The server answers in order, so a violation arrives before the
// flush returns.
func (b *broker) mayPublish(subject string) error {
	if rest, api := strings.CutPrefix(subject, "$JS.API."); api && b.conn.Domain() != "" {
		subject = "$JS." + b.conn.Domain() + ".API." + rest
	}
	return b.refusal(func() error { return b.conn.PublishRequest(subject, b.conn.NewInbox(), []byte("{}")) })
}

// maySubscribe subscribes briefly and returns the permission violation, if any.
func (b *broker) maySubscribe(subject string) error {
	return b.refusal(func() error {
		sub, err := b.conn.SubscribeSync(subject)
		if err != nil {
			return err
		}
		return errors.Join(b.conn.FlushTimeout(b.check.cfg.Timeout), sub.Unsubscribe())
	})
}

func (b *broker) refusal(try func() error) error {
	before := b.conn.LastError()
	if err := errors.Join(try(), b.conn.FlushTimeout(b.check.cfg.Timeout)); err != nil && !errors.Is(err, nats.ErrPermissionViolation) {
		return err
	}
	after := b.conn.LastError()
	if errors.Is(after, nats.ErrPermissionViolation) && after != before { //nolint:errorlint // an identical error is the previous one
		return after
	}
	return nil
}

// userInfo is the subject on which a user requests its own permissions.
const userInfo = "$SYS.REQ.USER.INFO"

// rights are the permissions of a user as the server reports them.
type rights struct {
	Publish struct {
		Allow, Deny []string
	}
	Responses *struct{} // set if allow_responses is: answers to any reply subject
}

// userInfo requests the user's permissions. known is false without an answer.
func (b *broker) userInfo(ctx context.Context) (_ rights, known bool) {
	if b.mayPublish(userInfo) != nil {
		return rights{}, false
	}
	ctx, cancel := b.check.limited(ctx)
	defer cancel()
	m, err := b.conn.RequestWithContext(ctx, userInfo, nil)
	if err != nil {
		return rights{}, false
	}
	var answer struct {
		Data *struct {
			Permissions rights
		}
	}
	if json.Unmarshal(m.Data, &answer) != nil || answer.Data == nil {
		return rights{}, false
	}
	return answer.Data.Permissions, true
}

// publish reports whether publishing to everything that subject matches is permitted.
func (r rights) publish(subject string) bool {
	if slices.ContainsFunc(r.Publish.Deny, func(deny string) bool { return server.SubjectsCollide(deny, subject) }) {
		return false
	}
	return len(r.Publish.Allow) == 0 || covered(r.Publish.Allow, subject)
}

// covered reports whether one of the patterns matches everything that subject
// matches. subject may contain wildcards.
func covered(patterns []string, subject string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return server.SubjectMatchesFilter(subject, p) })
}
