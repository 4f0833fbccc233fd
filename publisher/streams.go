package publisher

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// duplicateWindow is how long a stream remembers message ids. The fence covers
// older ones.
const duplicateWindow = 2 * time.Minute

// originKey is the stream's metadata with the sequence that it began with.
const originKey = "plaspy-first-seq"

// Bounds of the streams that no setting bounds, so that they cannot fill the
// store. The oldest messages go first.
const (
	maxResults        = 1 << 30             // bytes: more than a day of posts at 600 a minute
	maxDeadLetters    = 256 << 20           // bytes
	deadLettersMaxAge = 90 * 24 * time.Hour // time for an operator to handle a dead letter
)

// ErrStream means that a stream that the bridge needs does not exist and could not be
// created.
var ErrStream = errors.New("stream is missing")

// StreamOptions are the settings that the bridge's streams are created with.
type StreamOptions struct {
	Retention time.Duration // of events and results; 0 means no limit
	MaxBytes  int64         // limit of the events stream; 0 means no limit
	Replicas  int           // 1 to 5
	Inbound   bool          // include the streams of inbound messages
}

// StreamReport describes one stream.
type StreamReport struct {
	Stream  string
	Created bool
	// Differs lists the settings of an existing stream that differ: "max_age is
	// 24h0m0s, the bridge would set 168h0m0s". The stream is used as it is.
	Differs []string
	// Info describes the stream on the server.
	Info *jetstream.StreamInfo
}

// Streams returns the configurations of the streams that the bridge uses, including
// the last-location bucket.
func (s Subjects) Streams(o StreamOptions) []jetstream.StreamConfig {
	window := duplicateWindow
	if o.Retention > 0 && o.Retention < window {
		window = o.Retention
	}
	base := jetstream.StreamConfig{
		Storage: jetstream.FileStorage, Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld,
		MaxAge: o.Retention, Replicas: max(o.Replicas, 1), Duplicates: window, AllowDirect: true,
	}
	events := base
	events.Name = s.Events()
	events.Description = "plaspy-bridge: locations, alerts and device changes"
	events.Subjects = []string{s.Location("*"), s.Alert("*", "*"), s.Device("*")}
	events.MaxBytes = o.MaxBytes

	list := []jetstream.StreamConfig{events, s.lastBucket(o), s.replicasBucket(o)}
	if !o.Inbound {
		return list
	}
	results := base
	results.Name = s.Results()
	results.Description = "plaspy-bridge: answers of the API to posts"
	results.Subjects = []string{s.Result("location", "*"), s.Result("alert", "*")}
	results.MaxBytes = maxResults

	dead := base
	dead.Name = s.DeadLetters()
	dead.Description = "plaspy-bridge: inbound messages that will not be retried"
	dead.Subjects = []string{s.DeadLetter("location", "*"), s.DeadLetter("alert", "*"), s.DeadLetterUnknown()}
	dead.MaxAge, dead.MaxBytes = deadLettersMaxAge, maxDeadLetters

	in := base
	in.Name = s.Inbound()
	in.Description = "plaspy-bridge: locations and alerts to post"
	in.Subjects = []string{s.InboundAll()}
	// A message is deleted when it was posted or dead-lettered, never by age.
	in.Retention, in.MaxAge, in.Duplicates = jetstream.WorkQueuePolicy, 0, duplicateWindow
	// A full queue refuses new messages, so producers wait and accepted ones stay.
	in.Discard = jetstream.DiscardNew
	// No limit on the size of a message: MQTT acknowledges each message that the server
	// accepts, even if the stream then refuses it.
	return append(list, in, results, dead)
}

// lastBucket is a key-value bucket that the server fills from the events stream. It
// has no retention, because a parked device's last fix may be older than that of the
// events.
func (s Subjects) lastBucket(o StreamOptions) jetstream.StreamConfig {
	name := s.LastBucket()
	return jetstream.StreamConfig{
		Name:        BucketStream(name),
		Description: "plaspy-bridge: every device's newest location event",
		Subjects:    []string{BucketKey(name, ">")},
		Sources: []*jetstream.StreamSource{{
			Name: s.Events(),
			SubjectTransforms: []jetstream.SubjectTransformConfig{{
				Source: s.Location("*"), Destination: BucketKey(name, "{{wildcard(1)}}"),
			}},
		}},
		Storage: jetstream.FileStorage, Replicas: max(o.Replicas, 1),
		MaxMsgsPerSubject: 1, Discard: jetstream.DiscardNew, Duplicates: duplicateWindow,
		AllowRollup: true, DenyDelete: true, AllowDirect: true,
	}
}

const (
	// replicasMaxAge is how long the replicas' bucket keeps a key: longer than a weekend,
	// because the schedule's memory is in it, and far longer than any likely clock jump,
	// because an expired lease in use would interrupt the work.
	replicasMaxAge = 4 * 24 * time.Hour
	// replicasMaxAgeBefore is the same of earlier versions. It costs the memory of a longer
	// stop and nothing else, so it is no difference to report.
	replicasMaxAgeBefore = 24 * time.Hour
)

// replicasBucket is an ordinary key-value bucket with leases. Replicas recognize stale
// entries by their revisions and not by age. The age limit only removes entries of
// replicas that are long gone.
func (s Subjects) replicasBucket(o StreamOptions) jetstream.StreamConfig {
	name := s.ReplicasBucket()
	return jetstream.StreamConfig{
		Name:        BucketStream(name),
		Description: replicasAbout,
		Subjects:    []string{BucketKey(name, ">")},
		Storage:     jetstream.FileStorage, Replicas: max(o.Replicas, 1),
		MaxMsgsPerSubject: 1, Discard: jetstream.DiscardNew, Duplicates: duplicateWindow, MaxAge: replicasMaxAge,
		AllowRollup: true, DenyDelete: true, AllowDirect: true,
	}
}

// EnsureStreams creates the missing streams and reports on each. An existing stream
// is never changed. The error joins those of all streams; it wraps [ErrStream] for a
// stream that does not exist.
func EnsureStreams(ctx context.Context, js jetstream.JetStream, want []jetstream.StreamConfig) ([]StreamReport, error) {
	reports := make([]StreamReport, 0, len(want))
	var errs []error
	for _, cfg := range want {
		r, err := ensureStream(ctx, js, cfg, want)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		reports = append(reports, r)
	}
	return reports, errors.Join(errs...)
}

func ensureStream(ctx context.Context, js jetstream.JetStream, cfg jetstream.StreamConfig, all []jetstream.StreamConfig) (StreamReport, error) {
	r := StreamReport{Stream: cfg.Name}
	info, err := lookUp(ctx, js, cfg.Name)
	if err == nil {
		r.Info, r.Differs = info, differences(info, cfg)
		return r, nil
	}
	if !errors.Is(err, jetstream.ErrStreamNotFound) {
		return r, fmt.Errorf("stream %s: %w", cfg.Name, explain(err))
	}
	last, err := sourced(ctx, js, cfg.Name, all)
	if err != nil {
		return r, fmt.Errorf("create stream %s: %w", cfg.Name, explain(err))
	}
	if last > 0 {
		cfg.FirstSeq = last + 1
		cfg.Metadata = map[string]string{originKey: strconv.FormatUint(cfg.FirstSeq, 10)}
	}
	st, err := js.CreateStream(ctx, cfg)
	if Full(err) != "" && cfg.MaxBytes > 0 && cfg.Name != all[0].Name {
		// The server reserves a limit when it creates the stream. A limit that the bridge
		// chose must not prevent the use of a small store.
		cfg.MaxBytes = 0
		st, err = js.CreateStream(ctx, cfg)
	}
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		// Another replica was faster, with other settings.
		if info, err := lookUp(ctx, js, cfg.Name); err == nil {
			r.Info, r.Differs = info, differences(info, cfg)
			return r, nil
		}
	}
	if err != nil {
		return r, fmt.Errorf("create stream %s: %w: %w", cfg.Name, ErrStream, explain(err))
	}
	r.Created, r.Info = true, st.CachedInfo()
	return r, nil
}

// sourced returns the sequence of the last message that one of the streams sourced
// from the deleted stream of this name, or 0. The server continues after that
// sequence even if the origin was created again. If the new origin began at 1,
// nothing of it would be sourced until it had as many messages as the old one.
func sourced(ctx context.Context, js jetstream.JetStream, origin string, all []jetstream.StreamConfig) (uint64, error) {
	for _, cfg := range all {
		if !slices.ContainsFunc(cfg.Sources, func(s *jetstream.StreamSource) bool { return s.Name == origin }) {
			continue
		}
		st, err := js.Stream(ctx, cfg.Name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			continue
		}
		if err != nil {
			return 0, err
		}
		state := st.CachedInfo().State
		if state.LastSeq == 0 {
			continue
		}
		m, err := st.GetMsg(ctx, state.LastSeq)
		if errors.Is(err, jetstream.ErrMsgNotFound) || errors.Is(err, nats.ErrPermissionViolation) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("read the last message of %s: %w", cfg.Name, err)
		}
		if seq, ok := sourceSeq(m.Header); ok {
			return seq, nil
		}
	}
	return 0, nil
}

func lookUp(ctx context.Context, js jetstream.JetStream, name string) (*jetstream.StreamInfo, error) {
	st, err := js.Stream(ctx, name)
	if err != nil {
		return nil, err
	}
	return st.CachedInfo(), nil
}

// differences lists the settings that affect which messages a stream stores, keeps
// and returns, and that differ from those that the bridge would set.
func differences(info *jetstream.StreamInfo, want jetstream.StreamConfig) []string {
	var d []string
	got := info.Config
	add := func(setting string, got, want any) {
		if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
			d = append(d, fmt.Sprintf("%s is %s, the bridge would set %s", setting, g, w))
		}
	}
	slices.Sort(got.Subjects)
	slices.Sort(want.Subjects)
	add("subjects", got.Subjects, want.Subjects)
	add("storage", got.Storage, want.Storage)
	add("retention", got.Retention, want.Retention)
	add("discard", got.Discard, want.Discard)
	add("discard_new_per_subject", got.DiscardNewPerSubject, want.DiscardNewPerSubject)
	earlier := strings.HasPrefix(want.Name, BucketStream("")) && want.MaxAge == replicasMaxAge && got.MaxAge == replicasMaxAgeBefore
	if !earlier {
		add("max_age", got.MaxAge, want.MaxAge)
	}
	add("num_replicas", got.Replicas, want.Replicas)
	add("duplicate_window", got.Duplicates, want.Duplicates)
	add("max_msgs_per_subject", limit(got.MaxMsgsPerSubject), limit(want.MaxMsgsPerSubject))
	add("max_msg_size", limit(int64(got.MaxMsgSize)), limit(int64(want.MaxMsgSize)))
	add("max_bytes", limit(got.MaxBytes), limit(want.MaxBytes))
	add("max_msgs", limit(got.MaxMsgs), limit(want.MaxMsgs))
	add("max_consumers", limit(int64(got.MaxConsumers)), limit(int64(want.MaxConsumers)))
	add("no_ack", got.NoAck, want.NoAck)
	add("sealed", got.Sealed, want.Sealed)
	add("deny_delete", got.DenyDelete, want.DenyDelete)
	add("deny_purge", got.DenyPurge, want.DenyPurge)
	add("allow_rollup_hdrs", got.AllowRollup, want.AllowRollup)
	add("allow_direct", got.AllowDirect, want.AllowDirect)
	add("allow_msg_counter", got.AllowMsgCounter, want.AllowMsgCounter)
	add("allow_msg_schedules", got.AllowMsgSchedules, want.AllowMsgSchedules)
	add("subject_transform", transform(got.SubjectTransform), transform(want.SubjectTransform))
	add("mirror", sources(mirrored(got)), sources(mirrored(want)))
	add("sources", sources(got.Sources), sources(want.Sources))
	if n := info.State.Consumers; n > 0 && got.Retention == jetstream.WorkQueuePolicy {
		// The bridge reads the stream without a consumer.
		d = append(d, fmt.Sprintf("consumers is %d, the bridge needs none: a message that a consumer acknowledges is removed without being posted", n))
	}
	return d
}

func transform(t *jetstream.SubjectTransformConfig) string {
	if t == nil {
		return "none"
	}
	return t.Source + " to " + t.Destination
}

func mirrored(c jetstream.StreamConfig) []*jetstream.StreamSource {
	if c.Mirror == nil {
		return nil
	}
	return []*jetstream.StreamSource{c.Mirror}
}

// limit maps both values that mean "no limit" to 0.
func limit(n int64) int64 { return max(n, 0) }

func sources(list []*jetstream.StreamSource) string {
	var names []string
	for _, s := range list {
		names = append(names, s.Name)
		for _, t := range s.SubjectTransforms {
			names = append(names, t.Source+" to "+t.Destination)
		}
	}
	return "[" + strings.Join(names, ", ") + "]"
}

// Mark holds the state of the events stream at one moment that shows whether the
// stream still holds all acknowledged events.
type Mark struct {
	Created  time.Time
	FirstSeq uint64
	LastSeq  uint64
	// Origin is the first sequence that can have aged out. It is 1 unless the stream
	// replaced a deleted one or was purged.
	Origin uint64

	FirstTime time.Time     // of the first message
	LastTime  time.Time     // of the last message
	Deleted   int           // messages that were deleted between others
	Now       time.Time     // by the server's clock
	MaxAge    time.Duration // 0 means no limit
	// Limited means that the stream may drop young events, because an operator limited
	// its number of messages or its size.
	Limited bool
}

// ageSlack is how much younger than the limit an aged-out event may seem, because
// the bucket stored it a moment after the stream.
const ageSlack = 5 * time.Second

// old reports whether a message that was stored at this time has aged out.
func (m Mark) old(at time.Time) bool { return m.MaxAge > 0 && m.Now.Sub(at) > m.MaxAge-ageSlack }

// AgedOut reports whether a message with this sequence was in the stream and aged
// out. Sequence 0 stands for a message that had aged out when it was read. A sequence
// below Origin belonged to another stream.
func (m Mark) AgedOut(seq uint64) bool { return seq == 0 || seq >= m.Origin && seq < m.FirstSeq }

// Complete reports whether the stream holds every message that it ever stored.
func (m Mark) Complete() bool { return m.FirstSeq <= max(m.Origin, 1) }

// Verdict is the kind of loss of a stream between two marks.
type Verdict int

// The verdicts.
const (
	// Intact means that only aged-out events are missing.
	Intact Verdict = iota
	// Purged means that young events were deleted.
	Purged
	// Replaced means that acknowledged events are missing because the stream was
	// created again or restored from an older copy.
	Replaced
)

// compare returns the loss of a stream between two marks. acked is the highest
// sequence that was acknowledged before the later mark was requested.
func compare(old, now Mark, acked uint64) Verdict {
	switch {
	case !now.Created.Equal(old.Created), now.LastSeq < max(acked, old.LastSeq):
		return Replaced
	case now.Limited:
		return Intact
	case now.Deleted > old.Deleted:
		return Purged
	case old.LastSeq < max(old.FirstSeq, 1): // it was empty
		if now.FirstSeq > old.LastSeq+1 && !now.old(old.Now) {
			return Purged
		}
		return Intact
	case now.FirstSeq > old.FirstSeq && !now.old(old.FirstTime), now.FirstSeq > old.LastSeq && !now.old(old.LastTime):
		return Purged
	}
	return Intact
}

// history holds the history of the events stream, as far as this process observed it.
type history struct {
	mu    sync.Mutex
	known bool   // mark is set
	mark  Mark   // of the last observation
	acked uint64 // the highest sequence that was acknowledged
	lost  uint64 // events up to here that are missing did not age out
}

// acknowledged records an acknowledged sequence.
func (h *history) acknowledged(seq uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.acked = max(h.acked, seq)
}

func (h *history) ackedSeq() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.acked
}

// origin raises a mark's origin above the lost events.
func (h *history) origin(m Mark) Mark {
	h.mu.Lock()
	defer h.mu.Unlock()
	m.Origin = max(m.Origin, h.lost+1)
	return m
}

// observe compares a mark with the one before it. acked is the value of ackedSeq
// before the mark was requested.
func (h *history) observe(m Mark, acked uint64) Verdict {
	h.mu.Lock()
	defer h.mu.Unlock()
	verdict := Intact
	if h.known {
		verdict = compare(h.mark, m, acked)
	}
	switch verdict {
	case Purged:
		h.lost = m.LastSeq
	case Replaced:
		h.lost, h.acked = 0, m.LastSeq
	}
	h.known, h.mark = true, m
	return verdict
}
