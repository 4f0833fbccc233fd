package preflight

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/publisher"
)

// lookOnly is JetStream without the means to make a stream, so that the bridge's
// own code can be asked what it would do.
type lookOnly struct{ jetstream.JetStream }

var errWouldCreate = errors.New("it would be created")

// CreateStream creates nothing.
func (lookOnly) CreateStream(context.Context, jetstream.StreamConfig) (jetstream.Stream, error) {
	return nil, errWouldCreate
}

// streams looks at every stream that the bridge uses.
func (b *broker) streams(ctx context.Context) {
	clock, copies := false, b.cfg.StreamReplicas
	for _, want := range b.subjects.Streams(publisher.StreamOptions{Retention: b.cfg.Retention, Replicas: b.cfg.StreamReplicas, Inbound: b.cfg.Inbound}) {
		sent := time.Now()
		info := b.stream(ctx, want)
		if info == nil {
			continue
		}
		copies = min(copies, max(info.Config.Replicas, 1))
		if clock || info.TimeStamp.IsZero() {
			continue
		}
		clock = true
		b.skew("NATS server", offset(info.TimeStamp, 0, sent, time.Now()))
	}
	b.durability(copies)
}

// stream reports on one stream and returns it where it is there.
func (b *broker) stream(ctx context.Context, want jetstream.StreamConfig) *jetstream.StreamInfo {
	what := "stream " + want.Name
	if err := b.mayPublish("$JS.API.STREAM.INFO." + want.Name); err != nil {
		b.say(Fail, what, err.Error(), "allow this user to publish to $JS.API.STREAM.INFO."+want.Name)
		return nil
	}
	ctx, cancel := b.limited(ctx)
	defer cancel()
	reports, err := publisher.EnsureStreams(ctx, lookOnly{b.js}, []jetstream.StreamConfig{want})
	switch {
	case errors.Is(err, errWouldCreate):
		b.notThere(ctx, want)
		return nil
	case err != nil:
		b.say(Fail, what, reason(ctx, err), "look whether the server, or the stream's leader, is well")
		return nil
	}
	b.existing(want, reports[0])
	return reports[0].Info
}

// existing reports on a stream that is there.
func (b *broker) existing(want jetstream.StreamConfig, r publisher.StreamReport) {
	what, got := "stream "+r.Stream, r.Info.Config
	for _, subject := range want.Subjects {
		if !covered(got.Subjects, subject) {
			b.say(Fail, what, fmt.Sprintf("does not take %s but %s", subject, strings.Join(got.Subjects, ", ")),
				"add that subject to the stream, or set BRIDGE_PREFIX to another word")
			return
		}
	}
	switch {
	case got.Sealed:
		b.say(Fail, what, "is sealed: it takes no more messages", "delete it, or set BRIDGE_PREFIX to another word")
	case got.NoAck:
		b.say(Fail, what, "acknowledges nothing (no_ack)", "delete it, or set BRIDGE_PREFIX to another word")
	case got.Storage == jetstream.MemoryStorage:
		b.say(Warn, what, strings.Join(r.Differs, "; "), "it is used as it is, but a server's restart empties it: make it anew with file storage")
	case b.room.consumers(r.Info) != "":
		b.say(Fail, what, b.room.consumers(r.Info), "raise max_consumers, or delete consumers that nobody uses")
	case got.Discard == jetstream.DiscardNew && full(r.Info):
		b.say(Warn, what, fmt.Sprintf("is nearly full and then takes no more: %d messages, %d MiB", r.Info.State.Msgs, r.Info.State.Bytes>>20), "raise its max_bytes or max_msgs")
	case !b.healthy(what, r.Info):
	case got.Duplicates < retryHorizon:
		b.say(Warn, what, strings.Join(r.Differs, "; "), b.forgets(want.Name, got.Duplicates))
	case len(r.Differs) > 0:
		b.say(Warn, what, strings.Join(r.Differs, "; "), "it is used as it is; change it with nats stream edit, or the setting, if that is not meant")
	default:
		b.ok(what, "there, %d messages", r.Info.State.Msgs)
	}
}

// retryHorizon is for how long, with NATS there, a publish whose answer was lost
// is sent again: twice the wait for an answer and the longest pause between.
const retryHorizon = 30 * time.Second

// forgets tells what a duplicate window shorter than the retries costs.
func (b *broker) forgets(stream string, window time.Duration) string {
	switch stream {
	case b.subjects.Results(), b.subjects.DeadLetters():
		return fmt.Sprintf("make it %s at least: what is stored, its answer lost, and sent again later than %s is there twice", retryHorizon, window)
	case b.subjects.Inbound():
		return fmt.Sprintf("make it as long as producers go on trying: a message that they send again later than %s is posted twice", window)
	}
	return "nothing breaks, since a publish is fenced by the sequence before it; make it 2m to spare a look at the stream after each lost answer"
}

// full reports whether nine tenths of what a stream may hold are there.
func full(info *jetstream.StreamInfo) bool {
	c, s := info.Config, info.State
	return c.MaxBytes > 0 && s.Bytes >= uint64(c.MaxBytes)/10*9 || c.MaxMsgs > 0 && s.Msgs >= uint64(c.MaxMsgs)/10*9
}

// notThere reports on a stream that the bridge would create.
func (b *broker) notThere(ctx context.Context, want jetstream.StreamConfig) {
	what, create := "stream "+want.Name, "$JS.API.STREAM.CREATE."+want.Name
	if err := b.mayPublish(create); err != nil {
		b.say(Fail, what, "is missing, and this user may not create it", "create it yourself, or allow this user to publish to "+create)
		return
	}
	b.absent++
	if why := b.room.creatable(b.absent); why != "" {
		b.say(Fail, what, "is missing, and cannot be created: "+why, "raise the account's limit, or create the stream yourself")
		return
	}
	if want.Replicas > 1 && b.conn.ConnectedClusterName() == "" {
		b.say(Fail, what, fmt.Sprintf("is missing, and cannot be created with %d replicas: the server is in no cluster", want.Replicas), "set BRIDGE_STREAM_REPLICAS to 1, or NATS_URL to a cluster")
		return
	}
	if b.mayPublish("$JS.API.STREAM.NAMES") == nil {
		for _, subject := range want.Subjects {
			other, err := b.js.StreamNameBySubject(ctx, subject)
			if err == nil && other != "" {
				b.say(Fail, what, fmt.Sprintf("is missing, and cannot be created: stream %s takes %s already", other, subject), "delete that stream, or set BRIDGE_PREFIX to another word")
				return
			}
		}
	}
	b.ok(what, "not there yet, the bridge creates it")
}
