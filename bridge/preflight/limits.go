package preflight

import (
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// room is what an account may still use, of the kind that streams with these
// copies count to.
type room struct {
	used    uint64
	store   int64 // 0: no limit
	streams int
	jetstream.AccountLimits
}

// roomFor reads the account's limits. An account with tiers has one for each
// number of copies and none for all.
func roomFor(info *jetstream.AccountInfo, copies int) room {
	tier := info.Tier
	if t, tiered := info.Tiers[fmt.Sprintf("R%d", copies)]; tiered {
		tier = t
	}
	return room{used: tier.Store, store: max(tier.Limits.MaxStore, 0), streams: tier.Streams, AccountLimits: tier.Limits}
}

// limits reports on what the account may use. What the server as a whole may is
// not told to a user.
func (b *broker) limits(info *jetstream.AccountInfo) {
	const what = "JetStream"
	r := roomFor(info, b.cfg.StreamReplicas)
	b.room = &r
	if _, tiered := info.Tiers[fmt.Sprintf("R%d", b.cfg.StreamReplicas)]; len(info.Tiers) > 0 && !tiered {
		b.say(Fail, what, fmt.Sprintf("the account has no tier for streams of %d copies", b.cfg.StreamReplicas), "set BRIDGE_STREAM_REPLICAS to a number that it has one for")
		return
	}
	if r.store == 0 {
		b.ok(what, "enabled, without a limit for this account; the server's own max_file_store counts, which a user is not told")
		return
	}
	text := fmt.Sprintf("%d of %d MiB of the account's storage used", r.used>>20, r.store>>20)
	do := "raise the account's limit, or shorten BRIDGE_RETENTION"
	switch {
	case r.used >= uint64(r.store):
		b.say(Fail, what, text, do)
	case r.used >= uint64(r.store)/10*9:
		b.say(Warn, what, text, do)
	default:
		b.ok(what, "enabled, %s", text)
	}
}

// creatable tells in a few words why the account's limits forbid to create the
// streams that are missing, or "".
func (r *room) creatable(missing int) string {
	switch {
	case r == nil || missing == 0:
		return ""
	case r.MaxBytesRequired:
		return "the account wants a size limit (max_bytes) for every stream, and the bridge sets none"
	case r.MaxStreams > 0 && r.streams+missing > r.MaxStreams:
		return fmt.Sprintf("the account may have %d streams and has %d, %d are missing", r.MaxStreams, r.streams, missing)
	}
	return ""
}

// consumers tells in a few words why a stream has no room for the bridge's
// consumers, or "".
func (r *room) consumers(info *jetstream.StreamInfo) string {
	// The bridge's own, and one more for a read beside it.
	const wanted = 2
	most := info.Config.MaxConsumers
	if r != nil && r.MaxConsumers > 0 && (most <= 0 || r.MaxConsumers < most) {
		most = r.MaxConsumers
	}
	if most <= 0 || info.State.Consumers+wanted <= most {
		return ""
	}
	return fmt.Sprintf("may have %d consumers and has %d, the bridge makes up to %d more", most, info.State.Consumers, wanted)
}
