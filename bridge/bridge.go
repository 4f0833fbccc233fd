package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"plaspy-bridge/auth"
	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/inbound"
	"plaspy-bridge/bridge/ops"
	"plaspy-bridge/bridge/outbound"
	"plaspy-bridge/bridge/outbound/inventory"
	"plaspy-bridge/bridge/outbound/quota"
	"plaspy-bridge/bridge/outbound/schedule"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/query"
	"plaspy-bridge/bridge/replica"
	"plaspy-bridge/bridge/trace"
	"plaspy-bridge/bridge/view"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/embedded"
)

// Bridge is one running bridge. Make it with [New], run it once with
// [Bridge.Run].
type Bridge struct {
	cfg     config.Config
	log     *slog.Logger
	health  *ops.Health
	metrics *prometheus.Registry
	live    *liveness
	asked   calls         // by polls
	sent    calls         // by posts
	tracer  *trace.Tracer // nil where there are no traces

	keys      *config.KeySource
	transport *http.Transport
	budget    *plaspy.Budget
	circuit   *plaspy.Circuit // of the polls
	tokens    *auth.Manager
	client    *plaspy.Client
	nats      *embedded.Server // nil where NATS_URL is set
	conn      *publisher.Conn
	pub       *publisher.Publisher
	keeper    *keeper
	pool      *outbound.Pool
	group     *replica.Group
	origins   *inbound.Origins  // nil where the consumer side is off
	consumer  *inbound.Consumer // likewise
	queries   *query.Service
	listener  net.Listener
	server    *ops.Server
	view      *view.View // nil where no page is served

	stopping atomic.Bool
	fatal    chan error
	closers  []closer
}

// closer is one step of the teardown. They run last in, first out.
type closer struct {
	what  string
	close func() error
}

// New makes a bridge of a configuration that [Load] found good. It opens what
// can only be had at start, the embedded server and the listeners, and returns
// their errors; everything else is reached, and reached again, by Run. version
// goes into the User-Agent and onto the status page.
func New(ctx context.Context, cfg config.Config, version string, log *slog.Logger) (*Bridge, error) {
	b := &Bridge{cfg: cfg, log: log, health: ops.NewHealth(), fatal: make(chan error, 4)}
	b.metrics = ops.NewRegistry(b.health)
	b.live = newLiveness(b.health, livenessAge(cfg), cfg.Inbound)
	for _, step := range []func() error{
		func() error { return b.openTraces(ctx, version) },
		func() error { return b.openAPI(version) },
		b.openNATS,
		b.openPool,
		b.openGroup,
		func() error { return b.openInbound(version) },
		func() error { return b.openServer(ctx, version) },
	} {
		if err := step(); err != nil {
			return nil, errors.Join(err, b.close())
		}
	}
	return b, nil
}

func (b *Bridge) openAPI(version string) error {
	var err error
	if b.keys, err = b.cfg.KeySource(b.log); err != nil {
		return err
	}
	b.budget = plaspy.NewBudget(b.cfg.RateLimit, b.log.With("component", "budget"), b.metrics)
	o := plaspy.Options{
		BaseURL: &b.cfg.BaseURL, Timeout: b.cfg.Timeout, Budget: b.budget, Log: b.log.With("component", "plaspy"), Registerer: b.metrics,
		MaxConns: b.cfg.Workers + b.cfg.InboundWorkers, UserAgent: "plaspy-bridge/" + version, Trace: b.tracer,
	}
	b.transport = plaspy.NewTransport(o)
	b.closing("connections to the API", func() error { b.transport.CloseIdleConnections(); return nil })
	o.Transport = b.transport
	token, err := plaspy.TokenConfig(o, b.cfg.Username, b.keys.Key)
	if err != nil {
		return fmt.Errorf("token manager: %w", err)
	}
	b.tokens = auth.New(token, b.log.With("component", "auth"), b.metrics)
	o.Tokens = b.tokens
	if b.client, err = plaspy.New(o); err != nil {
		return fmt.Errorf("API client: %w", err)
	}
	return nil
}

func (b *Bridge) openNATS() error {
	o := b.cfg.ConnOptions("plaspy-bridge " + b.cfg.ReplicaID)
	if b.cfg.Embedded() {
		var err error
		b.nats, err = embedded.Start(b.cfg.EmbeddedOptions(), b.log)
		if errors.Is(err, embedded.ErrConfig) {
			return config.Faults{{Variable: "BRIDGE_EMBEDDED_CONFIG", Problem: "is not a configuration that nats-server takes: " + err.Error()}}
		}
		if err != nil {
			return err
		}
		b.closing("embedded NATS server", b.nats.Stop)
		b.log.Info("embedded nats server started", "url", b.nats.ClientURL(), "store", b.nats.Dir())
		o.InProcess = b.nats
	}
	o.OnConnect = func(bool) { b.keeper.nudge() }
	o.OnClosed = func(err error) { b.fail(fmt.Errorf("NATS client closed: %w", err)) }
	subjects := publisher.Subjects(b.cfg.Prefix)
	log := b.log.With("component", "publisher")
	var err error
	b.keeper = newKeeper(b.nats, subjects.Streams(b.cfg.StreamOptions()), b.health, log)
	if b.conn, err = publisher.Connect(o, log, b.metrics); errors.Is(err, publisher.ErrCredentials) {
		return config.Faults{{Variable: "NATS_NKEY, NATS_CERT or NATS_KEY", Problem: "names a file that cannot be used: " + err.Error()}}
	} else if err != nil {
		return err
	}
	b.closing("NATS connection", func() error {
		// A server that stands still is no failure of this process's: what it did
		// not store, the drain has told, and what was not acknowledged comes again.
		if err := b.conn.Shut(time.Second); err != nil {
			b.log.Warn("the NATS server does not answer, closing the connection anyway", "err", err)
		}
		return nil
	})
	if b.pub, err = publisher.New(b.conn, subjects, log, b.metrics); err != nil {
		return err
	}
	b.keeper.watch(b.conn, b.pub)
	return nil
}

func (b *Bridge) openPool() error {
	log := b.log.With("component", "poll")
	b.circuit = plaspy.NewCircuit(plaspy.CircuitOptions{Name: "polls", Initial: b.cfg.BackoffInitial, Max: b.cfg.BackoffMax, Log: log, Registerer: b.metrics})
	var posted func(string, time.Time, float64, float64) bool
	if b.cfg.Inbound {
		b.origins = inbound.NewOrigins()
		posted = b.origins.Posted
	}
	b.pool = outbound.New(outbound.Options{
		Workers: b.cfg.Workers, Refresh: b.cfg.DevicesRefresh,
		Select:       inventory.Selection{Devices: b.cfg.Devices, Exclude: b.cfg.DevicesExclude, Groups: b.cfg.Groups},
		IgnoreFields: b.cfg.IgnoreFields, SilentAfter: b.cfg.SilentAfter,
		Backfill: b.cfg.Backfill, BackfillAfter: b.cfg.BackfillAfter, AlertHistory: b.cfg.AlertHistory,
		Quota: b.quota(), BackoffInitial: b.cfg.BackoffInitial, BackoffMax: b.cfg.BackoffMax,
		Grace: b.cfg.ShutdownTimeout / 2, Alive: b.live.dispatcher.Beat, Posted: posted, Trace: b.tracer,
		Live: func() bool { return b.group.Live() },
		Owns: func(token string) bool { return b.group.Owns(token) },
		Token: func(ctx context.Context) error {
			_, err := b.tokens.Token(ctx)
			return err
		},
	}, countedPolls{b.client, &b.asked}, b.budget, b.circuit, heldStream{b.pub, b.keeper}, b.pub.Subjects(), b.policy(), log, b.metrics)
	// Until the group says what is this replica's, nothing is.
	b.pool.Own(func(string) bool { return false })
	return nil
}

// quota returns the daily quota of results, with its reservations in the bucket
// of the replicas. Nil means no limit.
func (b *Bridge) quota() *quota.Quota {
	return quota.New(b.cfg.DailyResults, quota.NewBucket(func(ctx context.Context) (jetstream.KeyValue, error) {
		return b.pub.JetStream().KeyValue(ctx, b.pub.Subjects().ReplicasBucket())
	}))
}

func (b *Bridge) policy() schedule.Policy {
	if b.cfg.Schedule == config.ScheduleFixed {
		return schedule.NewFixed(b.cfg.PollInterval)
	}
	return schedule.NewAdaptive(schedule.AdaptiveOptions{
		Interval: b.cfg.PollInterval, TripStartWeight: b.cfg.TripStartWeight, Seed: uint64(time.Now().UnixNano()),
	})
}

// heldStream is the stream as far as the keeper lets it be used.
type heldStream struct {
	*publisher.Publisher
	keeper *keeper
}

// Connected reports whether the broker is there, with the streams.
func (s heldStream) Connected() bool { return s.Publisher.Connected() && s.keeper.ready() }

func (b *Bridge) openServer(ctx context.Context, version string) error {
	if b.cfg.HTTPAddr == "" {
		return nil
	}
	var err error
	if b.listener, err = ops.Listen(ctx, b.cfg.HTTPAddr); err != nil {
		return fmt.Errorf("BRIDGE_HTTP_ADDR: %w", err)
	}
	b.openView(version)
	b.server = ops.New(b.listener, ops.Options{
		Health: b.health, Gatherer: b.metrics, Token: b.cfg.HTTPToken.Reveal(), Pprof: b.cfg.Pprof, Version: version,
		Log: b.log.With("component", "http"), View: b.view,
	})
	b.closing("HTTP server", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		return b.server.Shutdown(ctx)
	})
	return nil
}

// HTTPAddr is where health, metrics and the page are served, or nil.
func (b *Bridge) HTTPAddr() net.Addr {
	if b.listener == nil {
		return nil
	}
	return b.listener.Addr()
}

// ClientURL is where the embedded server takes other programs' connections, or
// "" where there is none.
func (b *Bridge) ClientURL() string {
	if b.nats == nil {
		return ""
	}
	return b.nats.ClientURL()
}

func (b *Bridge) fail(err error) {
	select {
	case b.fatal <- err:
	default: // one reason is enough
	}
}

func (b *Bridge) closing(what string, f func() error) {
	b.closers = append(b.closers, closer{what, f})
}

func (b *Bridge) close() error {
	var errs []error
	for _, c := range slices.Backward(b.closers) {
		if err := c.close(); err != nil {
			errs = append(errs, fmt.Errorf("close %s: %w", c.what, err))
		}
	}
	b.closers = nil
	return errors.Join(errs...)
}

// Run bridges until the context ends, then stops within the shutdown timeout.
// Its error is nil unless something the bridge cannot do without broke for
// good, or could not be closed.
func (b *Bridge) Run(ctx context.Context) error {
	polling, stopPolling := context.WithCancel(ctx)
	defer stopPolling()
	// What serves the polls outlives them.
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()

	var servers, polls sync.WaitGroup
	servers.Go(func() { b.pub.Run(serving) })
	servers.Go(func() {
		if err := b.tokens.Run(serving); err != nil && serving.Err() == nil {
			b.fail(fmt.Errorf("token manager: %w", err))
		}
	})
	servers.Go(func() { b.keys.Watch(serving, b.tokens.Retry) })
	servers.Go(func() { b.keeper.run(serving, b.pool.Resync) })
	servers.Go(func() { b.watch(serving) })
	if b.server != nil {
		servers.Go(func() { b.view.Run(serving) })
		servers.Go(func() {
			if err := b.server.Serve(); err != nil && serving.Err() == nil {
				b.fail(fmt.Errorf("HTTP server: %w", err))
			}
		})
	}
	polls.Go(func() { b.pool.Run(polling) })
	polls.Go(func() { b.runInbound(polling) })
	polls.Go(func() {
		if err := b.group.Run(polling); err != nil {
			b.log.Warn("others were not told that this replica leaves", "err", err)
		}
	})

	var broken error
	select {
	case <-ctx.Done():
		b.log.Info("stopping")
	case broken = <-b.fatal:
		b.log.Error("stopping, because the bridge cannot go on", "err", broken)
	}
	start := time.Now()
	b.stopping.Store(true)
	b.health.Set("lifecycle", false, "stopping")
	stopPolling()
	polls.Wait()
	drain, cancel := context.WithDeadline(context.Background(), start.Add(b.cfg.ShutdownTimeout*8/10))
	defer cancel()
	if err := b.pub.Drain(drain); err != nil {
		b.log.Warn("stopped with events not stored; the next start publishes what the API then still shows", "err", err)
	}
	stopServing()
	servers.Go(func() { b.flushTraces(start) }) // beside what else takes time
	err := b.close()
	servers.Wait()
	b.log.Info("stopped", "elapsed", time.Since(start).Round(time.Millisecond))
	return errors.Join(broken, err)
}

// watch tells the health what the parts say of themselves.
func (b *Bridge) watch(ctx context.Context) {
	const every = 250 * time.Millisecond
	b.health.Set("lifecycle", true, "")
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		b.report()
		if b.stopping.Load() {
			b.live.stopping()
		} else {
			b.live.look(b.pulse())
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (b *Bridge) report() {
	t := b.tokens.State()
	switch {
	case t.Held:
		b.health.Set("token", true, "")
	case t.Refused:
		b.health.Set("token", false, "the API refuses the key ("+t.Err+"): check PLASPY_USERNAME and the API key")
	case t.Err != "":
		b.health.Set("token", false, t.Err)
	default:
		b.health.Set("token", false, "no token was asked for yet")
	}
	switch list := b.pool.Listed(); {
	case list.Read && list.Err == "":
		b.health.Set("devices", true, "")
	case list.Read:
		b.health.Part("devices").Degraded("the list of " + list.At.UTC().Format(time.RFC3339) + " is in use: " + list.Err)
	case list.Err != "":
		b.health.Set("devices", false, list.Err)
	default:
		b.health.Set("devices", false, "the device list was not read yet")
	}
	if c := b.circuit.State(); c.Open {
		// Ready all the same: nothing here is wrong, and it goes on by itself.
		b.health.Part("api").Degraded("the API does not answer since " + c.Since.UTC().Format(time.RFC3339) + "; single probes go out until it does")
	} else {
		b.health.Part("api").OK()
	}
	denied := b.conn.Denied()
	switch trouble := b.conn.Trouble(); {
	case trouble != "":
		b.health.Set("nats", false, trouble)
	case denied != "":
		// What the bridge cannot do without shows in the other parts as well.
		b.health.Part("nats").Degraded(denied)
	default:
		b.health.Set("nats", true, "")
	}
	if trouble := b.pub.Trouble(); trouble != "" {
		b.health.Set("publish", false, strings.TrimSuffix(trouble+"; "+denied, "; "))
	} else {
		b.health.Set("publish", true, "")
	}
	b.inboundHealth()
	b.replicaHealth()
	if waits := b.pool.Ready(); waits != "" {
		b.health.Set("state", false, waits)
	} else {
		b.health.Set("state", true, "")
	}
}
