package preflight

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// nobody is a name that nothing has: what is asked about it changes nothing.
const nobody = "plaspy-bridge-check"

// need is something that a user has to be allowed.
type need struct {
	subject string // may hold wildcards
	use     string // what fails without it
}

// permissions looks whether this user may do what the bridge does. What can be
// asked without an effect is tried; where a try would be an event for
// subscribers, the server is asked what it allows.
func (b *broker) permissions(ctx context.Context) {
	const what = "permissions"
	missing := 0
	deny := func(verb string, n need, err error) {
		missing++
		b.say(Fail, what, err.Error(), fmt.Sprintf("allow this user to %s %s: without it %s", verb, n.subject, n.use))
	}
	for _, n := range b.requests() {
		if err := b.mayPublish(n.subject); err != nil {
			deny("publish to", n, err)
		}
	}
	for _, n := range b.subscriptions() {
		if err := b.maySubscribe(n.subject); err != nil {
			deny("subscribe to", n, err)
		}
	}
	allowed, known := b.userInfo(ctx)
	if !known {
		b.say(Warn, what, "publishing events was not tried, since a try would be an event, and the server does not tell what it allows",
			"allow this user to publish to "+userInfo+" to have it checked; otherwise /readyz of the running bridge tells")
		return
	}
	for _, n := range b.events() {
		if !allowed.publish(n.subject) {
			deny("publish to", n, errors.New("the server does not allow it"))
		}
	}
	if missing == 0 {
		b.ok(what, "everything that the bridge does is allowed")
	}
}

// requests are those to JetStream that can be tried: about nobody, or with a
// body that is refused.
func (b *broker) requests() []need {
	events := b.subjects.Events()
	all := []need{
		{"$JS.API.CONSUMER.CREATE." + events + "." + nobody, "the bridge cannot read what it published before"},
		{"$JS.API.CONSUMER.MSG.NEXT." + events + "." + nobody, "the bridge cannot read what it published before"},
		{"$JS.API.STREAM.MSG.GET." + events, "a lost acknowledgement cannot be resolved"},
		{"$JS.API.CONSUMER.CREATE." + b.replicas() + "." + nobody, noReplicas},
		{"$JS.API.DIRECT.GET." + b.replicas() + "." + nobody, noReplicas},
	}
	if !b.cfg.Inbound {
		return all
	}
	in := b.subjects.Inbound()
	const use = "nothing inbound is posted"
	return append(all,
		need{"$JS.API.CONSUMER.CREATE." + in + "." + nobody, use},
		need{"$JS.API.CONSUMER.MSG.NEXT." + in + "." + nobody, use},
		need{"$JS.API.CONSUMER.DELETE." + in + "." + nobody, use},
		need{"$JS.API.STREAM.MSG.GET." + in, use},
		need{"$JS.ACK." + in + "." + nobody, "inbound messages are posted again and again"},
	)
}

const noReplicas = "replicas cannot share the work"

// replicas is the stream below the bucket that replicas share.
func (b *broker) replicas() string { return "KV_" + b.subjects.ReplicasBucket() }

func (b *broker) subscriptions() []need {
	const use = "there is no query service"
	return []need{{b.subjects.API() + "." + nobody, use}, {"$SRV." + nobody, use}}
}

// events are the subjects of what the bridge publishes.
func (b *broker) events() []need {
	s := b.subjects
	const use = "the events are not published"
	all := []need{
		{s.Location("*"), use}, {s.Alert("*", "*"), use}, {s.Device("*"), use},
		{"$KV." + s.ReplicasBucket() + ".>", noReplicas},
	}
	if !b.cfg.Inbound {
		return all
	}
	const results, dead = "no result is stored, and what was posted is posted again", "what cannot be posted blocks its device"
	return append(all,
		need{s.Result("location", "*"), results}, need{s.Result("alert", "*"), results},
		need{s.DeadLetter("location", "*"), dead}, need{s.DeadLetter("alert", "*"), dead}, need{s.DeadLetterUnknown(), dead})
}

// mayPublish publishes something without an effect and returns the server's
// refusal. The server answers in order: what it has against the message is known
// when the flush is done.
func (b *broker) mayPublish(subject string) error {
	return b.refusal(func() error { return b.conn.PublishRequest(subject, nats.NewInbox(), []byte("{}")) })
}

// maySubscribe subscribes for a moment and returns the server's refusal.
func (b *broker) maySubscribe(subject string) error {
	return b.refusal(func() error {
		sub, err := b.conn.SubscribeSync(subject)
		if err != nil {
			return err
		}
		return errors.Join(b.conn.FlushTimeout(b.cfg.Timeout), sub.Unsubscribe())
	})
}

func (b *broker) refusal(try func() error) error {
	before := b.conn.LastError()
	if err := errors.Join(try(), b.conn.FlushTimeout(b.cfg.Timeout)); err != nil && !errors.Is(err, nats.ErrPermissionViolation) {
		return err
	}
	after := b.conn.LastError()
	if errors.Is(after, nats.ErrPermissionViolation) && after != before { //nolint:errorlint // the same error would be the one of before
		return after
	}
	return nil
}

// userInfo is where a server tells a user about itself.
const userInfo = "$SYS.REQ.USER.INFO"

// rights are what a server allows a user.
type rights struct {
	Publish struct {
		Allow, Deny []string
	}
}

// userInfo asks the server what it allows; known is false where it does not
// tell.
func (b *broker) userInfo(ctx context.Context) (_ rights, known bool) {
	if b.mayPublish(userInfo) != nil {
		return rights{}, false
	}
	ctx, cancel := b.limited(ctx)
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

// publish reports whether all of a subject is allowed.
func (r rights) publish(subject string) bool {
	if slices.ContainsFunc(r.Publish.Deny, func(deny string) bool { return server.SubjectsCollide(deny, subject) }) {
		return false
	}
	return len(r.Publish.Allow) == 0 || covered(r.Publish.Allow, subject)
}

// covered reports whether one of the patterns takes everything that a subject,
// which may hold wildcards, stands for.
func covered(patterns []string, subject string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return covers(p, subject) })
}

func covers(pattern, subject string) bool {
	p, s := strings.Split(pattern, "."), strings.Split(subject, ".")
	for i, token := range p {
		switch {
		case token == ">":
			return len(s) > i
		case i >= len(s), s[i] == ">", token != "*" && token != s[i]:
			return false
		}
	}
	return len(p) == len(s)
}
