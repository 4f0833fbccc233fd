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

// readOnly is a JetStream that creates no streams, so that EnsureStreams only
// compares.
type readOnly struct{ jetstream.JetStream }

var errWouldCreate = errors.New("it would be created")

// CreateStream creates nothing.
func (readOnly) CreateStream(context.Context, jetstream.StreamConfig) (jetstream.Stream, error) {
	return nil, errWouldCreate
}

// streams checks every stream that the bridge uses.
func (b *broker) streams(ctx context.Context) {
	clock, replicas := false, b.check.cfg.StreamReplicas
	for _, want := range b.subjects.Streams(b.check.cfg.StreamOptions()) {
		sent := time.Now()
		info := b.stream(ctx, want)
		if info == nil {
			continue
		}
		replicas = min(replicas, max(info.Config.Replicas, 1))
		if clock || info.TimeStamp.IsZero() {
			continue
		}
		clock = true
		b.check.skew("NATS server", offset(info.TimeStamp, 0, sent, time.Now()))
	}
	b.durability(replicas)
}

// stream checks one stream. It returns nil if the stream does not exist or cannot be
// read.
func (b *broker) stream(ctx context.Context, want jetstream.StreamConfig) *jetstream.StreamInfo {
	item := "stream " + want.Name
	if err := b.mayPublish("$JS.API.STREAM.INFO." + want.Name); err != nil {
		b.check.say(Fail, item, err.Error(), "allow this user to publish to $JS.API.STREAM.INFO."+want.Name)
		return nil
	}
	ctx, cancel := b.check.limited(ctx)
	defer cancel()
	reports, err := publisher.EnsureStreams(ctx, readOnly{b.js}, []jetstream.StreamConfig{want})
	switch {
	case errors.Is(err, errWouldCreate):
		b.missingStream(ctx, want)
		return nil
	case err != nil:
		b.check.say(Fail, item, reason(ctx, err), "check the state of the server and of the stream's leader")
		return nil
	}
	b.existing(want, reports[0])
	return reports[0].Info
}

// existing checks an existing stream against the configuration.
func (b *broker) existing(want jetstream.StreamConfig, r publisher.StreamReport) {
	item, got := "stream "+r.Stream, r.Info.Config
	for _, subject := range want.Subjects {
		if !covered(got.Subjects, subject) {
			b.check.say(Fail, item, fmt.Sprintf("its subjects are %[2]s, without %[1]s", subject, strings.Join(got.Subjects, ", ")),
				"add that subject to the stream, or set BRIDGE_PREFIX to another value")
			return
		}
	}
	switch {
	case got.Sealed:
		b.check.say(Fail, item, "is sealed: it accepts no more messages", "delete it, or set BRIDGE_PREFIX to another value")
	case got.NoAck:
		b.check.say(Fail, item, "sends no acknowledgements (no_ack)", "delete it, or set BRIDGE_PREFIX to another value")
	case got.Storage == jetstream.MemoryStorage:
		b.check.say(Warn, item, strings.Join(r.Differs, "; "), "the bridge uses it, but a restart of the server empties it: create it again with file storage")
	case r.Stream != b.subjects.Inbound() && b.room.consumers(r.Info) != "": // inbound messages are read without a consumer
		b.check.say(Fail, item, b.room.consumers(r.Info), "raise max_consumers, or delete unused consumers")
	case got.Discard == jetstream.DiscardNew && full(r.Info):
		b.check.say(Warn, item, fmt.Sprintf("is nearly full and then rejects messages: %d messages, %d MiB", r.Info.State.Msgs, r.Info.State.Bytes>>20), "raise its max_bytes or max_msgs")
	case !b.healthy(item, r.Info):
	case got.Duplicates < retryHorizon:
		b.check.say(Warn, item, strings.Join(r.Differs, "; "), b.windowAdvice(want.Name, got.Duplicates))
	case len(r.Differs) > 0:
		b.check.say(Warn, item, strings.Join(r.Differs, "; "), "the bridge uses it as it is; if this is unintended, change it with nats stream edit, or change the setting")
	default:
		b.check.ok(item, "exists, %d messages", r.Info.State.Msgs)
	}
}

// retryHorizon is the longest time between two attempts of a publish while NATS is
// available: two timeouts for an acknowledgement and the longest delay.
const retryHorizon = 30 * time.Second

// windowAdvice returns the effect of a duplicate window that is shorter than the
// retries, and the remedy.
func (b *broker) windowAdvice(stream string, window time.Duration) string {
	switch stream {
	case b.subjects.Results(), b.subjects.DeadLetters():
		return fmt.Sprintf("set it to at least %s: a message that is sent again more than %s after a lost acknowledgement is stored twice", retryHorizon, window)
	case b.subjects.Inbound():
		return fmt.Sprintf("set it to the longest retry time of your producers: a message that they send again after more than %s is posted twice", window)
	}
	return "harmless, because each publish expects the previous sequence; set it to 2m to save a stream read after each lost acknowledgement"
}

// full reports whether a stream has reached 90 % of a limit.
func full(info *jetstream.StreamInfo) bool {
	c, s := info.Config, info.State
	return c.MaxBytes > 0 && s.Bytes >= uint64(c.MaxBytes)/10*9 || c.MaxMsgs > 0 && s.Msgs >= uint64(c.MaxMsgs)/10*9
}

// missingStream checks whether the bridge can create a missing stream.
func (b *broker) missingStream(ctx context.Context, want jetstream.StreamConfig) {
	item, create := "stream "+want.Name, "$JS.API.STREAM.CREATE."+want.Name
	if err := b.mayPublish(create); err != nil {
		b.check.say(Fail, item, "is missing, and this user may not create it", "create it, or allow this user to publish to "+create)
		return
	}
	b.absent++
	if why := b.room.creatable(b.absent); why != "" {
		b.check.say(Fail, item, "is missing, and cannot be created: "+why, "raise the account's limit, or create the stream")
		return
	}
	if want.Replicas > 1 && b.conn.ConnectedClusterName() == "" {
		b.check.say(Fail, item, fmt.Sprintf("is missing, and cannot be created with %d replicas: the server is in no cluster", want.Replicas), "set BRIDGE_STREAM_REPLICAS to 1, or NATS_URL to a cluster")
		return
	}
	if b.mayPublish("$JS.API.STREAM.NAMES") == nil {
		for _, subject := range want.Subjects {
			other, err := b.js.StreamNameBySubject(ctx, subject)
			if err == nil && other != "" {
				b.check.say(Fail, item, fmt.Sprintf("is missing, and cannot be created: stream %s already has the subject %s", other, subject), "delete that stream, or set BRIDGE_PREFIX to another value")
				return
			}
		}
	}
	b.check.ok(item, "does not exist yet, the bridge creates it")
}

// room has the usage and limits of an account, in the tier of one number of replicas.
type room struct {
	used    uint64
	store   int64 // 0 means no limit
	streams int
	jetstream.AccountLimits
}

// roomFor returns the limits for streams with this number of replicas. An account
// may have a tier for each number instead of common limits.
func roomFor(info *jetstream.AccountInfo, replicas int) room {
	tier := info.Tier
	if t, tiered := info.Tiers[fmt.Sprintf("R%d", replicas)]; tiered {
		tier = t
	}
	return room{used: tier.Store, store: max(tier.Limits.MaxStore, 0), streams: tier.Streams, AccountLimits: tier.Limits}
}

// limits checks the account's limits. A client cannot read the server's own limits.
func (b *broker) limits(info *jetstream.AccountInfo) {
	const item = "JetStream"
	r := roomFor(info, b.check.cfg.StreamReplicas)
	b.room = &r
	if _, tiered := info.Tiers[fmt.Sprintf("R%d", b.check.cfg.StreamReplicas)]; len(info.Tiers) > 0 && !tiered {
		b.check.say(Fail, item, fmt.Sprintf("the account has no tier for streams of %d replicas", b.check.cfg.StreamReplicas), "set BRIDGE_STREAM_REPLICAS to the number of one of its tiers")
		return
	}
	if r.store == 0 {
		b.check.ok(item, "enabled, without a limit for this account; the server's max_file_store, which a client cannot read, still applies")
		return
	}
	text := fmt.Sprintf("%d of %d MiB of the account's storage used", r.used>>20, r.store>>20)
	do := "raise the account's limit, or shorten BRIDGE_RETENTION"
	switch {
	case r.used >= uint64(r.store):
		b.check.say(Fail, item, text, do)
	case r.used >= uint64(r.store)/10*9:
		b.check.say(Warn, item, text, do)
	default:
		b.check.ok(item, "enabled, %s", text)
	}
}

// creatable returns the limit of the account that prevents the creation of the
// missing streams, or "".
func (r *room) creatable(missing int) string {
	switch {
	case r == nil || missing == 0:
		return ""
	case r.MaxBytesRequired:
		return "the account requires a size limit (max_bytes) for every stream, and the bridge sets none"
	case r.MaxStreams > 0 && r.streams+missing > r.MaxStreams:
		return fmt.Sprintf("the account has %[2]d of at most %[1]d streams, and %[3]d are missing", r.MaxStreams, r.streams, missing)
	}
	return ""
}

// consumers returns the limit that prevents the creation of the bridge's consumers
// on a stream, or "".
func (r *room) consumers(info *jetstream.StreamInfo) string {
	// Reads of two replicas, or a watch and a read.
	const wanted = 2
	most := info.Config.MaxConsumers
	if r != nil && r.MaxConsumers > 0 && (most <= 0 || r.MaxConsumers < most) {
		most = r.MaxConsumers
	}
	if most <= 0 || info.State.Consumers+wanted <= most {
		return ""
	}
	return fmt.Sprintf("has %[2]d of at most %[1]d consumers, and the bridge creates up to %[3]d more", most, info.State.Consumers, wanted)
}
