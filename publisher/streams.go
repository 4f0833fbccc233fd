package publisher

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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
	deadLettersMaxAge = 90 * 24 * time.Hour // a dead letter waits for a person
)

// ErrStream says that a stream that the bridge needs is not there and could
// not be created.
var ErrStream = errors.New("stream is missing")

// StreamOptions are the settings that the bridge's streams are created with.
type StreamOptions struct {
	Retention time.Duration // how long events and results stay; 0 means for ever
	MaxBytes  int64         // the most that the events stream holds; 0 means no limit
	Replicas  int           // 1 to 5
	Inbound   bool          // the consumer side's streams too
}

// StreamReport describes one stream.
type StreamReport struct {
	Stream  string
	Created bool
	// Differs lists, for a stream that was there with other settings, what
	// differs: "max_age is 24h0m0s, the bridge would set 168h0m0s". The stream
	// is used as it is.
	Differs []string
	// Info is the stream as the server has it.
	Info *jetstream.StreamInfo
}

// Streams gives the configurations of the streams that the bridge uses, the
// last-location bucket among them.
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
	results.Description = "plaspy-bridge: what the API answered to posts"
	results.Subjects = []string{s.Result("location", "*"), s.Result("alert", "*")}
	results.MaxBytes = maxResults

	dead := base
	dead.Name = s.DeadLetters()
	dead.Description = "plaspy-bridge: inbound messages that will not be tried again"
	dead.Subjects = []string{s.DeadLetter("location", "*"), s.DeadLetter("alert", "*"), s.DeadLetterUnknown()}
	dead.MaxAge, dead.MaxBytes = deadLettersMaxAge, maxDeadLetters

	in := base
	in.Name = s.Inbound()
	in.Description = "plaspy-bridge: locations and alerts to post"
	in.Subjects = []string{s.InboundAll()}
	// A message leaves when it was posted or dead-lettered, never by age.
	in.Retention, in.MaxAge, in.Duplicates = jetstream.WorkQueuePolicy, 0, duplicateWindow
	// A full queue refuses the producer, which can wait, instead of losing what it accepted.
	in.Discard = jetstream.DiscardNew
	// No limit of its own for a message: MQTT acknowledges whatever the server
	// takes, also if the stream then refuses it.
	return append(list, in, results, dead)
}

// lastBucket is a key-value bucket that the server fills by itself, out of the
// events stream. It outlives the events: a parked device's last fix may be
// older than their retention.
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

// replicasBucket is an ordinary key-value bucket. Its entries are leases. Stale ones are
// recognized by their revisions and not by age: the limit only removes entries that
// were not renewed for long.
func (s Subjects) replicasBucket(o StreamOptions) jetstream.StreamConfig {
	name := s.ReplicasBucket()
	return jetstream.StreamConfig{
		Name:        BucketStream(name),
		Description: "plaspy-bridge: what replicas need to share the work",
		Subjects:    []string{BucketKey(name, ">")},
		Storage:     jetstream.FileStorage, Replicas: max(o.Replicas, 1),
		MaxMsgsPerSubject: 1, Discard: jetstream.DiscardNew, Duplicates: duplicateWindow, MaxAge: 24 * time.Hour,
		AllowRollup: true, DenyDelete: true, AllowDirect: true,
	}
}

// EnsureStreams creates the missing ones of the given streams and reports on
// each. A stream that exists is never changed. The error, which wraps
// [ErrStream] for a stream that is not there, joins those of all streams.
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
		r.Info, r.Differs = info, differences(info.Config, cfg)
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
		// A limit is set aside from the store when the stream is made. One that the
		// bridge chose must not keep a small store from being used.
		cfg.MaxBytes = 0
		st, err = js.CreateStream(ctx, cfg)
	}
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		// Another replica was faster, with other settings.
		if info, err := lookUp(ctx, js, cfg.Name); err == nil {
			r.Info, r.Differs = info, differences(info.Config, cfg)
			return r, nil
		}
	}
	if err != nil {
		return r, fmt.Errorf("create stream %s: %w: %w", cfg.Name, ErrStream, explain(err))
	}
	r.Created, r.Info = true, st.CachedInfo()
	return r, nil
}

// sourced is the sequence of the last message that one of the streams took from
// the one with this name, which was deleted since; 0 if there is none. The
// server goes on from there, also when the origin is another one: were that to
// begin at 1, nothing of it would be taken until it had grown as long as the
// old one was.
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

// differences lists the settings of a stream that decide which messages it takes,
// keeps and gives back, and differ from those that the bridge would set.
func differences(got, want jetstream.StreamConfig) []string {
	var d []string
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
	add("max_age", got.MaxAge, want.MaxAge)
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

// limit folds the two spellings of "no limit".
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

// Mark describes the events stream at one moment, as far as it decides whether
// the stream still holds all acknowledged events.
type Mark struct {
	Created  time.Time
	FirstSeq uint64
	LastSeq  uint64
	// Origin is the first sequence that can have aged out: 1, unless the stream
	// took the place of one that was deleted, or was purged.
	Origin uint64

	FirstTime time.Time     // of the first message
	LastTime  time.Time     // of the last message
	Deleted   int           // messages that are gone from between others
	Now       time.Time     // by the server's clock
	MaxAge    time.Duration // 0 means that events stay for ever
	// Limited says that the stream also drops events that are not old, because
	// an operator limited their number or size.
	Limited bool
}

// ageSlack is how much younger than its limit an event that aged out may seem:
// the bucket took it a moment after the stream did.
const ageSlack = 5 * time.Second

// old reports whether a message that the stream took at an instant has left it
// because of its age.
func (m Mark) old(at time.Time) bool { return m.MaxAge > 0 && m.Now.Sub(at) > m.MaxAge-ageSlack }

// AgedOut reports whether a message with this sequence was in the stream and has
// left it. 0 stands for a message that had done so when it was read. One with a
// lower sequence than the stream's first was in another stream.
func (m Mark) AgedOut(seq uint64) bool { return seq == 0 || seq >= m.Origin && seq < m.FirstSeq }

// Whole reports whether the stream holds everything that it ever took.
func (m Mark) Whole() bool { return m.FirstSeq <= max(m.Origin, 1) }

// Verdict says which kind of loss a stream suffered between two marks.
type Verdict int

// Verdicts of [Compare].
const (
	// Intact means that nothing is missing but events that aged out.
	Intact Verdict = iota
	// Purged means that events were deleted that were not old.
	Purged
	// Replaced means that the stream was deleted and made again, or was restored
	// from an older copy: acknowledged events are missing.
	Replaced
)

// Compare says whether a stream lost events between two marks. acked is the highest
// sequence that it had acknowledged when the later mark was asked for.
func Compare(old, now Mark, acked uint64) Verdict {
	switch {
	case !now.Created.Equal(old.Created), now.LastSeq < max(acked, old.LastSeq):
		return Replaced
	case now.Limited:
		return Intact
	case now.Deleted > old.Deleted:
		return Purged
	case old.LastSeq < max(old.FirstSeq, 1): // it held nothing that could be old
		if now.FirstSeq > old.LastSeq+1 && !now.old(old.Now) {
			return Purged
		}
		return Intact
	case now.FirstSeq > old.FirstSeq && !now.old(old.FirstTime), now.FirstSeq > old.LastSeq && !now.old(old.LastTime):
		return Purged
	}
	return Intact
}

// life is this process's knowledge of the events stream's past.
type life struct {
	mu    sync.Mutex
	known bool   // mark is set
	mark  Mark   // of the last observation
	acked uint64 // the highest sequence that was acknowledged
	lost  uint64 // events up to here that are missing did not age out

	silent atomic.Bool // the bucket of the alert silent is there
}

// acknowledged notes a sequence that the stream acknowledged.
func (l *life) acknowledged(seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked = max(l.acked, seq)
}

func (l *life) ackedSeq() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acked
}

// origin raises a mark's origin above the lost events.
func (l *life) origin(m Mark) Mark {
	l.mu.Lock()
	defer l.mu.Unlock()
	m.Origin = max(m.Origin, l.lost+1)
	return m
}

// observe compares a mark with the one before it. acked is ackedSeq from before
// the mark was asked for.
func (l *life) observe(m Mark, acked uint64) Verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	verdict := Intact
	if l.known {
		verdict = Compare(l.mark, m, acked)
	}
	switch verdict {
	case Purged:
		l.lost = m.LastSeq
	case Replaced:
		l.lost, l.acked = 0, m.LastSeq
	}
	l.known, l.mark = true, m
	return verdict
}
