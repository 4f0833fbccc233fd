package streams

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"plaspy-bridge/bridge/ops"
	"plaspy-bridge/bridge/tick"
	"plaspy-bridge/publisher"
)

const (
	lookEvery   = time.Second
	lookTimeout = 5 * time.Second
	reviveEvery = 5 * time.Second
	reviveMax   = time.Minute
	// allEvery is the time between checks of all streams.
	allEvery = 5 * time.Second
)

// Server is an embedded NATS server.
type Server interface {
	Trouble(ctx context.Context) string // why it cannot store messages, or ""; takes seconds if it cannot
	Room() bool                         // whether there is room on its disk
	Revive() error                      // restarts it
}

// Options are the settings of a [Keeper].
type Options struct {
	Server     Server // nil if the broker is another process
	Streams    []jetstream.StreamConfig
	Log        *slog.Logger
	Registerer prometheus.Registerer // optional
}

// Keeper keeps the streams usable. Make it with [New], and run it once with
// [Keeper.Run]. The other methods are safe for concurrent use and, but for Await, do
// not block.
type Keeper struct {
	opts Options
	log  *slog.Logger

	wake  chan struct{}
	good  atomic.Bool // the streams exist
	state atomic.Pointer[ops.State]
	usage *usage

	// Owned by Run.
	conn     *publisher.Conn
	pub      *publisher.Publisher
	logged   map[string]string // the differences that were logged of each stream
	trouble  string
	revive   time.Duration // until the next try
	reviveAt time.Time
	switcher switcher
	allEvery time.Duration
	lookedAt time.Time // of the last check of all streams
	filler   filler
}

// New makes a keeper.
func New(o Options) *Keeper {
	k := &Keeper{
		opts: o, log: o.Log, wake: make(chan struct{}, 1), usage: newUsage(o.Registerer),
		logged: make(map[string]string), revive: reviveEvery, allEvery: allEvery,
	}
	k.report(ops.Down("starting"))
	return k
}

// Run checks the streams over a connection until ctx is cancelled. It calls changed
// whenever their content may differ from this process's copy.
func (k *Keeper) Run(ctx context.Context, conn *publisher.Conn, pub *publisher.Publisher, changed func()) {
	k.conn, k.pub = conn, pub
	k.filler = filler{pub: pub, log: k.log}
	k.switcher.well = func() bool { return k.Ready() && pub.Trouble() == "" }
	k.switcher.move = conn.SwitchServer
	defer k.filler.wait()
	defer k.usage.wait()
	ticker := tick.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		if k.conn.IsConnected() {
			k.look(ctx, changed)
			if elapsed, moved := k.switcher.look(time.Now()); moved {
				k.log.Warn("server cannot store messages, connecting to another server of the cluster", "elapsed", elapsed.Round(time.Second))
			}
		} else {
			k.switcher.lost()
			k.bad("not connected to NATS")
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			ticker.Next()
		case <-k.wake:
		}
	}
}

// Await blocks until the streams exist. It returns an error only if ctx ends.
func (k *Keeper) Await(ctx context.Context) error {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for !k.Ready() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
	return ctx.Err()
}

// Ready reports whether the streams existed at the last check.
func (k *Keeper) Ready() bool { return k.good.Load() }

// Health returns the state of the streams at the last check.
func (k *Keeper) Health() ops.State { return *k.state.Load() }

func (k *Keeper) report(s ops.State) { k.state.Store(&s) }

// Look requests a check now. Call it after every connect, because the new server
// may not have the streams.
func (k *Keeper) Look() {
	k.good.Store(false)
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

func (k *Keeper) look(ctx context.Context, changed func()) {
	if k.opts.Server != nil {
		if trouble := k.opts.Server.Trouble(ctx); trouble != "" {
			k.bad(trouble)
			k.reviveServer(ctx)
			return
		}
	}
	if err := TooOld(k.conn.ConnectedServerVersion()); err != nil {
		k.bad(err.Error())
		return
	}
	fresh := !k.good.Load()
	if fresh || time.Since(k.lookedAt) >= k.allEvery {
		if err := k.ensure(ctx, fresh); err != nil {
			k.failed(ctx, err)
			return
		}
	}
	if err := k.observe(ctx, fresh, changed); err != nil {
		k.failed(ctx, err)
		return
	}
	k.report(ops.Up())
	if k.trouble != "" {
		k.log.Info("streams are usable again")
		k.trouble = ""
	}
	k.good.Store(true)
}

// ensure creates the missing streams and checks the others. On a connection that was
// checked before, only a missing stream is an error, because a request may be lost.
func (k *Keeper) ensure(ctx context.Context, fresh bool) error {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	reports, err := publisher.EnsureStreams(ctx, k.pub.JetStream(), k.opts.Streams)
	k.lookedAt = time.Now()
	k.logReports(reports)
	k.usage.record(reports)
	k.usage.ask(k.pub.JetStream(), fresh)
	if !publisher.Filled(reports, k.opts.Streams) {
		k.filler.start(ctx)
	}
	if fresh || errors.Is(err, publisher.ErrStream) {
		return err
	}
	return nil
}

// observe notices that the events stream lost events.
func (k *Keeper) observe(ctx context.Context, fresh bool, changed func()) error {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	stream := k.pub.Subjects().Events()
	mark, verdict, err := k.pub.Reader().Observe(ctx)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound) && !fresh:
		k.log.Warn("stream is missing, creating it again", "stream", stream)
		k.Look()
		return err
	case err != nil:
		return err
	case verdict == publisher.Replaced:
		k.log.Warn("stream lost acknowledged events, comparing all devices with it", "stream", stream, "seq", mark.LastSeq)
	case verdict == publisher.Purged:
		k.log.Warn("events were deleted from the stream, comparing all devices with it", "stream", stream, "seq", mark.FirstSeq, "deleted", mark.Deleted)
	}
	if fresh || verdict != publisher.Intact {
		changed()
	}
	return nil
}

// failed records why the streams cannot be used, unless the request was cancelled
// because the bridge stops.
func (k *Keeper) failed(ctx context.Context, err error) {
	if !errors.Is(ctx.Err(), context.Canceled) {
		k.bad(strings.ReplaceAll(err.Error(), "\n", "; "))
	}
}

func (k *Keeper) bad(reason string) {
	k.good.Store(false)
	k.report(ops.Down(reason))
	if k.trouble != reason {
		k.trouble = reason
		k.log.Warn("streams cannot be used", "reason", reason)
	}
}

// logReports logs created streams and different settings, each difference once.
func (k *Keeper) logReports(reports []publisher.StreamReport) {
	for _, r := range reports {
		text := strings.Join(r.Differs, "; ")
		switch {
		case r.Created:
			k.log.Info("stream created", "stream", r.Stream)
		case text != "" && text != k.logged[r.Stream]:
			k.log.Warn("stream has different settings and is used as it is", "stream", r.Stream, "differs", text)
		}
		k.logged[r.Stream] = text
	}
}

func (k *Keeper) reviveServer(ctx context.Context) {
	now := time.Now()
	if now.Before(k.reviveAt) || !k.opts.Server.Room() {
		return
	}
	k.reviveAt = now.Add(k.revive)
	k.revive = min(2*k.revive, reviveMax)
	if err := k.opts.Server.Revive(); err != nil {
		k.log.Warn("could not restart the embedded nats server", "err", err)
		return
	}
	k.log.Info("embedded nats server restarted")
	if k.opts.Server.Trouble(ctx) == "" && ctx.Err() == nil {
		k.revive = reviveEvery
	}
}

// minServer is the oldest nats-server with all features that the bridge needs.
var minServer = [2]int{2, 11}

// TooOld returns an error for a server that is too old. A version that cannot be
// parsed is accepted.
func TooOld(version string) error {
	major, minor, _, known := ParseVersion(version)
	if !known || major > minServer[0] || major == minServer[0] && minor >= minServer[1] {
		return nil
	}
	return fmt.Errorf("nats-server %s is too old: the bridge needs %d.%d or newer", version, minServer[0], minServer[1])
}

// ParseVersion reads the version of a server, such as 2.15.2 or 2.12.0-RC.1. It is known
// if it has a major and a minor version. A patch that is no number is 0.
func ParseVersion(version string) (major, minor, patch int, known bool) {
	version, _, _ = strings.Cut(version, "-")
	first, rest, _ := strings.Cut(version, ".")
	second, third, _ := strings.Cut(rest, ".")
	major, errMajor := strconv.Atoi(first)
	minor, errMinor := strconv.Atoi(second)
	if errMajor != nil || errMinor != nil {
		return 0, 0, 0, false
	}
	patch, err := strconv.Atoi(third)
	if err != nil {
		patch = 0
	}
	return major, minor, patch, true
}

// Needs lists the permissions that a keeper needs.
func Needs(subjects publisher.Subjects, o publisher.StreamOptions) []publisher.Permission {
	all := []publisher.Permission{publisher.Request("INFO", "", "the use and the limit of the store are not known")}
	all[0].Optional = true
	for _, cfg := range subjects.Streams(o) {
		info := publisher.Request("STREAM.INFO", cfg.Name, "the stream "+cfg.Name+" is not used")
		create := publisher.Request("STREAM.CREATE", cfg.Name, "the stream "+cfg.Name+" has to be created by an operator")
		create.Creates = cfg.Name
		all = append(all, info, create)
		if len(cfg.Sources) > 0 {
			all = append(all, publisher.Request("DIRECT.GET", cfg.Name, "the bucket does not follow an events stream that was deleted and created again"))
		}
	}
	return all
}
