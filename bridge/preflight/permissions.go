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
)

// nobody is a name that nothing has: what is asked about it changes nothing.
const nobody = "plaspy-bridge-check"

// need is something that a user has to be allowed.
type need struct {
	subject string // may hold wildcards
	use     string // what fails without it
	try     string // without wildcards, for what can be tried; empty: subject
}

func (n need) trial() string { return cmp.Or(n.try, n.subject) }

// permissions looks whether this user may do what the bridge does. What can be
// asked without an effect is tried; where a try would be an event for
// subscribers, the server is asked what it allows.
//
// It returns false where the replicas' bucket cannot be read.
func (b *broker) permissions(ctx context.Context) (readable bool) {
	const what = "permissions"
	missing := map[string]bool{}
	readable = b.mayPublish("$JS.API.STREAM.INFO.KV_"+b.subjects.ReplicasBucket()) == nil
	deny := func(verb string, n need, err error) {
		if missing[n.subject] {
			return // tried in two ways
		}
		missing[n.subject] = true
		readable = readable && !strings.HasPrefix(n.subject, "$JS.API.CONSUMER.CREATE.KV_"+b.subjects.ReplicasBucket()+".")
		b.say(Fail, what, err.Error(), fmt.Sprintf("allow this user to %s %s: without it %s", verb, n.subject, n.use))
	}
	for _, n := range b.requests() {
		if err := b.mayPublish(n.trial()); err != nil {
			deny("publish to", n, err)
		}
	}
	for _, n := range b.subscriptions() {
		if err := b.maySubscribe(n.trial()); err != nil {
			deny("subscribe to", n, err)
		}
	}
	allowed, known := b.userInfo(ctx)
	if !known {
		b.say(Warn, what, "publishing events was not tried, since a try would be an event, and the server does not tell what it allows",
			"allow this user to publish to "+userInfo+" to have it checked; otherwise /readyz of the running bridge tells")
		return readable
	}
	for _, n := range b.events() {
		if !allowed.publish(n.subject) {
			deny("publish to", n, errors.New("the server does not allow it"))
		}
	}
	if allowed.Responses == nil && !allowed.publish(nats.InboxPrefix+">") {
		deny("publish to", need{subject: nats.InboxPrefix + ">", use: "the query service's answers do not arrive (allow_responses does as well)"}, errors.New("the server does not allow it"))
	}
	if len(missing) == 0 {
		b.ok(what, "everything that the bridge does is allowed")
	}
	return readable
}

// requests are those to JetStream that can be tried: about nobody, or with a
// body that is refused.
func (b *broker) requests() []need {
	const (
		reading   = "the bridge cannot read what it published before"
		replicas  = "replicas cannot share the work"
		posting   = "nothing inbound is posted"
		returning = "a location that comes back through the API is published as the device's own"
	)
	s, events, bucket := b.subjects, b.subjects.Events(), b.subjects.ReplicasBucket()
	get, flow := "$JS.API.DIRECT.GET.KV_"+bucket+".", "$JS.FC.KV_"+bucket+"."
	all := append(readers(events, s.Location(nobody), reading), readers("KV_"+s.LastBucket(), "$KV."+s.LastBucket()+"."+nobody, reading)...)
	all = append(all, need{subject: "$JS.API.STREAM.MSG.GET." + events, use: "a lost acknowledgement cannot be resolved"})
	for _, n := range readers("KV_"+bucket, "$KV."+bucket+"."+nobody, replicas) {
		if !strings.Contains(n.subject, ".MSG.NEXT.") { // a watch is pushed to
			all = append(all, n)
		}
	}
	all = append(all,
		need{subject: get + ">", use: replicas, try: get + "$KV." + bucket + "." + nobody},
		// The server stops sending to a watch that does not answer its flow control.
		need{subject: flow + ">", use: replicas, try: flow + nobody + ".1"})
	if !b.cfg.Inbound {
		return all
	}
	in := s.Inbound()
	all = append(append(all, readers(in, "", posting)...), readers(s.Results(), s.Result("location", nobody), returning)...)
	return append(all,
		need{subject: "$JS.API.STREAM.MSG.GET." + in, use: posting},
		// As long as a real one, of a consumer that there is not.
		need{subject: "$JS.ACK." + in + ".>", use: "inbound messages are posted again and again", try: "$JS.ACK." + in + "." + nobody + ".1.1.1.1.1"})
}

// readers are the requests that reading a stream takes: its consumer is made with
// a filter in the subject where there is one, and deleted.
func readers(stream, filter, use string) (all []need) {
	of := "." + stream + "."
	for _, verb := range []string{"CREATE", "MSG.NEXT", "DELETE"} {
		api := "$JS.API.CONSUMER." + verb + of
		all = append(all, need{subject: api + ">", use: use, try: api + nobody})
		if verb == "CREATE" && filter != "" {
			all = append(all, need{subject: api + ">", use: use, try: api + nobody + "." + filter})
		}
	}
	return all
}

func (b *broker) subscriptions() []need {
	const use = "there is no query service"
	api := b.subjects.API() + "."
	return []need{{subject: api + ">", use: use, try: api + nobody}, {subject: "$SRV.>", use: use, try: "$SRV." + nobody}}
}

// events are the subjects to which the bridge publishes what has an effect.
func (b *broker) events() []need {
	s := b.subjects
	const use, replicas = "the events are not published", "replicas cannot share the work"
	all := []need{
		{subject: s.Location("*"), use: use}, {subject: s.Alert("*", "*"), use: use}, {subject: s.Device("*"), use: use},
		{subject: "$KV." + s.ReplicasBucket() + ".>", use: replicas},
	}
	if !b.cfg.Inbound {
		return all
	}
	const results, dead = "no result is stored, and what was posted is posted again", "what cannot be posted blocks its device"
	return append(all,
		need{subject: s.Result("location", "*"), use: results}, need{subject: s.Result("alert", "*"), use: results},
		need{subject: s.DeadLetter("location", "*"), use: dead}, need{subject: s.DeadLetter("alert", "*"), use: dead},
		need{subject: s.DeadLetterUnknown(), use: dead},
		need{subject: "$JS.API.STREAM.MSG.DELETE." + s.Inbound(), use: "a message of a long backlog stays in the stream and blocks its device"})
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
	Responses *struct{} // to requests, wherever they want them; nil: none but what Publish allows
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
