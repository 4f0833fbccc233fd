package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/ops"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/embedded"
)

const (
	keepEvery   = time.Second
	keepTimeout = 5 * time.Second
	reviveEvery = 5 * time.Second
	reviveMax   = time.Minute
	// censusEvery is how often the other streams are looked after. The one of
	// the events has to be looked at far more often.
	censusEvery = 5 * time.Second
)

// keeper keeps the streams there. It notices that the broker was away, that a
// stream was deleted, and that a stream no longer holds what was acknowledged,
// and says so to whoever reads the state.
type keeper struct {
	srv  *embedded.Server // nil where the broker is somebody else's
	want []jetstream.StreamConfig
	log  *slog.Logger
	conn *publisher.Conn
	pub  *publisher.Publisher

	wake  chan struct{}
	good  atomic.Bool // the streams are there
	state atomic.Pointer[ops.State]

	// Owned by run.
	mark     publisher.Mark
	told     map[string]string // what was logged of each stream
	trouble  string
	revive   time.Duration // until the next try
	reviveAt time.Time
	hop      hopper
	census   time.Time // when all streams were last looked at
	unfilled bool      // the bucket of the last locations is not filled by the server
}

func newKeeper(srv *embedded.Server, want []jetstream.StreamConfig, log *slog.Logger) *keeper {
	k := &keeper{srv: srv, want: want, log: log, wake: make(chan struct{}, 1), told: map[string]string{}, revive: reviveEvery}
	k.report(ops.Down("starting"))
	return k
}

// health is the state of the streams when they were last looked at.
func (k *keeper) health() ops.State { return *k.state.Load() }

func (k *keeper) report(s ops.State) { k.state.Store(&s) }

func (k *keeper) watch(conn *publisher.Conn, pub *publisher.Publisher) {
	k.conn, k.pub = conn, pub
	k.hop.well = func() bool { return k.ready() && pub.Trouble() == "" }
	k.hop.move = conn.Elsewhere
}

// ready reports whether the streams were there when they were last looked at.
func (k *keeper) ready() bool { return k.good.Load() }

// await waits until the streams are there.
func (k *keeper) await(ctx context.Context) error {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for !k.ready() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
	return ctx.Err()
}

// nudge has the streams looked at now: the connection is new.
func (k *keeper) nudge() {
	k.good.Store(false)
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// run keeps the streams until the context ends, and calls changed whenever
// their content may not be what this process believes.
func (k *keeper) run(ctx context.Context, changed func()) {
	var filler sync.WaitGroup
	defer filler.Wait()
	filling := false
	ticker := time.NewTicker(keepEvery)
	defer ticker.Stop()
	for {
		if k.conn.IsConnected() {
			k.look(ctx, changed)
			if elapsed, moved := k.hop.look(time.Now()); moved {
				k.log.Warn("this server is of no use, connecting to another one of the cluster", "elapsed", elapsed.Round(time.Second))
			}
			if k.unfilled && !filling {
				filling = true
				filler.Go(func() { k.fill(ctx) })
			}
		} else {
			k.hop.lost()
			k.bad("not connected to NATS")
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-k.wake:
		}
	}
}

func (k *keeper) look(ctx context.Context, changed func()) {
	ctx, cancel := context.WithTimeout(ctx, keepTimeout)
	defer cancel()
	if k.srv != nil {
		if trouble := k.srv.Trouble(); trouble != "" {
			k.bad(trouble)
			k.reviveServer()
			return
		}
	}
	if err := oldServer(k.conn.ConnectedServerVersion()); err != nil {
		k.bad(err.Error())
		return
	}
	if k.good.Load() {
		k.compare(ctx, changed)
		return
	}
	reports, err := publisher.EnsureStreams(ctx, k.pub.JetStream(), k.want)
	k.tell(reports)
	k.census = time.Now()
	if err != nil {
		k.failed(ctx, strings.ReplaceAll(err.Error(), "\n", "; "))
		return
	}
	mark, err := k.pub.Mark(ctx)
	if err != nil {
		k.failed(ctx, err.Error())
		return
	}
	switch {
	case k.mark.Created.IsZero(): // the first look
	case !mark.Created.Equal(k.mark.Created), mark.LastSeq < k.mark.LastSeq:
		k.pub.Lost(0)
	case mark.Robbed(k.mark):
		k.pub.Lost(mark.LastSeq)
	}
	k.mark = mark
	k.pub.ResetAcked(k.mark.LastSeq)
	k.report(ops.Up())
	if k.trouble != "" {
		k.log.Info("streams are there again")
		k.trouble = ""
	}
	changed()
	k.good.Store(true)
}

// compare notices that the stream is another one than it was.
func (k *keeper) compare(ctx context.Context, changed func()) {
	acked := k.pub.Acked()
	mark, err := k.pub.Mark(ctx)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		k.log.Warn("stream is gone, making it again", "stream", k.want[0].Name)
		k.nudge()
		return
	case err != nil:
		k.failed(ctx, err.Error())
		return
	case !mark.Created.Equal(k.mark.Created), mark.LastSeq < acked:
		k.log.Warn("stream does not hold what it acknowledged, comparing all devices with it", "stream", k.want[0].Name,
			"seq", mark.LastSeq, "acknowledged", acked)
		k.pub.Lost(0)
		k.pub.ResetAcked(mark.LastSeq)
		changed()
	case mark.Robbed(k.mark):
		k.log.Warn("stream was purged of events, comparing all devices with it", "stream", k.want[0].Name,
			"seq", mark.FirstSeq, "deleted", mark.Deleted)
		k.pub.Lost(mark.LastSeq)
		changed()
	}
	k.mark = mark
	k.report(ops.Up())
	if time.Since(k.census) >= censusEvery {
		k.others(ctx)
	}
}

// others makes streams again that were deleted beside the events.
func (k *keeper) others(ctx context.Context) {
	k.census = time.Now()
	reports, err := publisher.EnsureStreams(ctx, k.pub.JetStream(), k.want)
	k.tell(reports)
	if errors.Is(err, publisher.ErrStream) {
		k.failed(ctx, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
}

// failed is bad for what was asked of the server and failed, unless it was only
// given up because the bridge stops.
func (k *keeper) failed(ctx context.Context, reason string) {
	if !errors.Is(ctx.Err(), context.Canceled) {
		k.bad(reason)
	}
}

func (k *keeper) bad(reason string) {
	k.good.Store(false)
	k.report(ops.Down(reason))
	if k.trouble != reason {
		k.trouble = reason
		k.log.Warn("streams cannot be used", "reason", reason)
	}
}

// tell logs what became of the streams, once for each state.
func (k *keeper) tell(reports []publisher.StreamReport) {
	k.unfilled = !publisher.Filled(reports, k.want)
	for _, r := range reports {
		text := strings.Join(r.Differs, "; ")
		switch {
		case r.Created:
			k.log.Info("stream created", "stream", r.Stream)
		case text != "" && text != k.told[r.Stream]:
			k.log.Warn("stream has other settings and is used as it is", "stream", r.Stream, "differs", text)
		}
		k.told[r.Stream] = text
	}
}

// fill puts the locations into their bucket where the server does not do so by
// itself, until the context ends.
func (k *keeper) fill(ctx context.Context) {
	told := ""
	for ctx.Err() == nil {
		err := k.pub.FillLast(ctx)
		if ctx.Err() == nil && err != nil && err.Error() != told {
			told = err.Error()
			k.log.Warn("bucket of the last locations is not filled, trying again", "stream", k.pub.Subjects().LastBucket(), "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(reviveEvery):
		}
	}
}

func (k *keeper) reviveServer() {
	now := time.Now()
	if now.Before(k.reviveAt) || !k.srv.Room() {
		return
	}
	k.reviveAt = now.Add(k.revive)
	k.revive = min(2*k.revive, reviveMax)
	if err := k.srv.Revive(); err != nil {
		k.log.Warn("embedded nats server not restarted", "err", err)
		return
	}
	k.log.Info("embedded nats server restarted")
	if k.srv.Trouble() == "" {
		k.revive = reviveEvery
	}
}

// minServer is the oldest nats-server whose streams do what the bridge needs.
var minServer = [2]int{2, 11}

// oldServer returns an error for a server that is too old; a version that
// cannot be read is left to prove itself.
func oldServer(version string) error {
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	a, errA := strconv.Atoi(major)
	b, errB := strconv.Atoi(minor)
	known := errA == nil && errB == nil
	if !known || a > minServer[0] || a == minServer[0] && b >= minServer[1] {
		return nil
	}
	return fmt.Errorf("nats-server %s is too old: the bridge needs %d.%d or newer", version, minServer[0], minServer[1])
}
