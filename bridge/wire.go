package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/auth"
	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/forget"
	"plaspy-bridge/bridge/inbound"
	"plaspy-bridge/bridge/inbound/echo"
	"plaspy-bridge/bridge/inbound/message"
	"plaspy-bridge/bridge/ops"
	"plaspy-bridge/bridge/outbound"
	"plaspy-bridge/bridge/outbound/inventory"
	"plaspy-bridge/bridge/outbound/memory"
	"plaspy-bridge/bridge/outbound/quota"
	"plaspy-bridge/bridge/outbound/schedule"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/replica"
	"plaspy-bridge/bridge/streams"
	"plaspy-bridge/bridge/trace"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/embedded"
)

// Each open method makes one part, out of the parts that the methods before it
// made, in the order in which New calls them.

// logger returns the logger of one part.
func (b *Bridge) logger(component string) *slog.Logger { return b.log.With("component", component) }

// openTelemetry makes the tracer, which is nil unless an endpoint is set, and sends
// the metrics to a collector if OTEL_METRICS_EXPORTER names one.
func (b *Bridge) openTelemetry(ctx context.Context) error {
	log := b.logger("trace")
	o := trace.Options{Version: b.version, Instance: b.cfg.ReplicaID}
	var err error
	b.telemetry.tracer, err = trace.New(ctx, o, log, b.telemetry.metrics)
	if err != nil {
		return telemetryFault("traces", err)
	}
	if b.telemetry.tracer != nil {
		log.Info("exporting traces", "url", config.MaskURL(trace.Endpoint()))
	}
	// This covers an error of New; after Run there is nothing left to export.
	b.closers.add("traces", func() error { b.flushTraces(time.Now()); return nil })
	export, err := trace.NewMetrics(ctx, o, log, b.telemetry.metrics)
	if err != nil {
		return telemetryFault("metrics", err)
	}
	if export != nil {
		log.Info("exporting metrics", "url", config.MaskURL(trace.MetricsEndpoint()))
	}
	b.closers.add("export of metrics", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), b.cfg.ShutdownTimeout/10)
		defer cancel()
		if err := export.Shutdown(ctx); err != nil { // no reason for another exit status
			log.Warn("stopped before the metrics were exported", "err", err)
		}
		return nil
	})
	return nil
}

// telemetryFault names the variable if a file is the cause.
func telemetryFault(signal string, err error) error {
	if file, ok := errors.AsType[*trace.FileError](err); ok {
		return config.Faults{{Variable: file.Variable, Problem: "names a file that cannot be used: " + file.Err.Error()}}
	}
	return fmt.Errorf("%s: %w", signal, err)
}

// openAPI makes the client of the REST API, with its token and its budget.
func (b *Bridge) openAPI(context.Context) error {
	var err error
	if b.api.keys, err = b.cfg.KeySource(b.log); err != nil {
		return err
	}
	b.api.budget = plaspy.NewBudget(b.cfg.RateLimit, b.logger("budget"), b.telemetry.metrics)
	b.api.budget.LimitDay(b.cfg.DailyUsage)
	o := plaspy.Options{
		BaseURL: &b.cfg.BaseURL, Timeout: b.cfg.Timeout, Budget: b.api.budget, Log: b.logger("plaspy"), Registerer: b.telemetry.metrics,
		MaxConns: b.cfg.Workers + b.cfg.InboundWorkers, UserAgent: "plaspy-bridge/" + b.version, Trace: b.telemetry.tracer,
	}
	transport := plaspy.NewTransport(o)
	b.closers.add("connections to the API", func() error { transport.CloseIdleConnections(); return nil })
	o.Transport = transport
	token, err := plaspy.TokenConfig(o, b.cfg.Username, b.api.keys.Key)
	if err != nil {
		return fmt.Errorf("token manager: %w", err)
	}
	b.api.tokens = auth.New(token, b.logger("auth"), b.telemetry.metrics)
	o.Tokens = b.api.tokens
	if b.api.client, err = plaspy.New(o); err != nil {
		return fmt.Errorf("API client: %w", err)
	}
	b.api.pollCircuit = b.newCircuit("polls", b.logger("poll"), plaspy.CircuitOptions{Counted: true}) // those of this replica
	b.api.postCircuit = b.newCircuit("posts", b.logger("inbound"), plaspy.CircuitOptions{Elsewhere: b.api.pollCircuit.Answers})
	return nil
}

// newCircuit makes the circuit of one kind of requests, with the options that are its own.
func (b *Bridge) newCircuit(name string, log *slog.Logger, o plaspy.CircuitOptions) *plaspy.Circuit {
	o.Name, o.Initial, o.Max, o.Log = name, b.cfg.BackoffInitial, b.cfg.BackoffMax, log
	o.Registerer, o.Answered = b.telemetry.metrics, b.api.client.Answered
	return plaspy.NewCircuit(o)
}

// openNATS starts the embedded server, unless NATS_URL is set, and makes the
// connection, the publisher and the keeper of the streams.
func (b *Bridge) openNATS(ctx context.Context) error {
	o := b.cfg.ConnOptions("plaspy-bridge " + b.cfg.ReplicaID)
	if b.cfg.Embedded() {
		if err := b.startEmbedded(); err != nil {
			return err
		}
		o.InProcess = b.broker.embedded
	}
	subjects := publisher.Subjects(b.cfg.Prefix)
	log := b.logger("publisher")
	kept := streams.Options{Streams: subjects.Streams(b.cfg.StreamOptions()), Log: log, Registerer: b.telemetry.metrics}
	if b.broker.embedded != nil {
		kept.Server = b.broker.embedded
	}
	b.broker.keeper = streams.New(kept)
	o.OnConnect = b.broker.keeper.Look
	o.OnServer = b.telemetry.tracer.Connected
	o.OnClosed = func(err error) { b.fail(fmt.Errorf("NATS client closed: %w", err)) }
	var err error
	if b.broker.conn, err = publisher.ConnectContext(ctx, o, log, b.telemetry.metrics); errors.Is(err, publisher.ErrCredentials) {
		return config.Faults{{Variable: "NATS_CREDS, NATS_NKEY, NATS_CERT or NATS_KEY", Problem: "names a file that cannot be used: " + err.Error()}}
	} else if err != nil {
		return err
	}
	b.closers.add("NATS connection", func() error {
		// A server that does not answer is not an error of this process. The drain has
		// logged the events that were not stored, and the next start publishes them.
		if err := b.broker.conn.Shut(min(time.Second, b.cfg.ShutdownTimeout/10)); err != nil {
			b.log.Warn("the NATS server does not answer, closing the connection anyway", "err", err)
		}
		return nil
	})
	if b.broker.pub, err = publisher.New(b.broker.conn, subjects, log, b.telemetry.metrics); err != nil {
		return err
	}
	return nil
}

func (b *Bridge) startEmbedded() error {
	var err error
	b.broker.embedded, err = embedded.Start(b.cfg.EmbeddedOptions(), b.log)
	if wrong, ok := errors.AsType[*embedded.ConfigError](err); ok {
		return config.Faults{{Variable: "BRIDGE_EMBEDDED_CONFIG", Problem: wrong.Problem()}}
	}
	if err != nil {
		return err
	}
	b.closers.add("embedded NATS server", b.broker.embedded.Stop)
	b.log.Info("embedded nats server started", "url", b.broker.embedded.ClientURL(), "store", b.broker.embedded.Dir())
	return nil
}

// openGroup makes the group of replicas that share the prefix and NATS. They divide
// the devices, the budget and the posts.
func (b *Bridge) openGroup(context.Context) error {
	b.api.budget.SetShare(0)
	b.group = replica.New(replica.Options{
		ID: b.cfg.ReplicaID, JS: b.broker.pub.JetStream(), Subjects: b.broker.pub.Subjects(), Replicas: b.cfg.StreamReplicas, Limit: b.cfg.RateLimit,
		Settings: b.cfg.Agreement(), OnThrottle: b.api.budget.ThrottleUntil, Consumes: b.cfg.Inbound, Grace: b.cfg.ShutdownTimeout / 2,
		Log: b.logger("replica"), Registerer: b.telemetry.metrics,
	})
	b.api.budget.OnThrottle(b.group.Throttled)
	return nil
}

// openPool makes the pool of polls.
func (b *Bridge) openPool(context.Context) error {
	log := b.logger("poll")
	var posted func(string, time.Time, float64, float64) bool
	if b.cfg.Inbound {
		b.consuming.echoes = echo.New()
		posted = b.consuming.echoes.Posted
	}
	pub, api := b.broker.pub, countedPolls{b.api.client, &b.telemetry.live.pollCalls}
	b.polling.assigned.group = b.group
	b.polling.pool = outbound.New(outbound.Options{
		Workers: b.cfg.Workers, Refresh: b.cfg.DevicesRefresh, EventGroups: b.cfg.EventGroups,
		Select:       inventory.Selection{Devices: b.cfg.Devices, Exclude: b.cfg.DevicesExclude, Groups: b.cfg.Groups},
		IgnoreFields: b.cfg.IgnoreFields, SilentAfter: b.cfg.SilentAfter,
		Backfill: b.cfg.Backfill, BackfillAfter: b.cfg.BackfillAfter, BackfillMax: min(b.cfg.BackfillMax, b.cfg.Retention), AlertHistory: b.cfg.AlertHistory,
		Quota: newQuota(b.cfg.DailyResults, pub), BackoffInitial: b.cfg.BackoffInitial, BackoffMax: b.cfg.BackoffMax,
		Grace: b.cfg.ShutdownTimeout / 2, Alive: b.telemetry.live.dispatcher.Beat, Posted: posted, Trace: b.telemetry.tracer,
		SetDevices: func(n int) {
			b.api.pollCircuit.SetDevices(n)
			b.api.postCircuit.SetDevices(n)
		},
		Token: func(ctx context.Context) error {
			_, err := b.api.tokens.Token(ctx)
			return err
		},
	}, outbound.Parts{
		API: api, Devices: api, Gaps: api, Budget: b.api.budget, Circuit: b.api.pollCircuit,
		Events: pub, Positions: pub.Positions(), State: pub.Reader(),
		Connected:      func() bool { return pub.Connected() && b.broker.keeper.Ready() }, // and has found the streams
		RememberSilent: pub.Positions().RememberSilent,
		Owner:          &b.polling.assigned, Assigned: b.polling.assigned.known, Forgotten: b.polling.assigned.forgotten.Marked,
		Schedule: newPolicy(b.cfg), Memory: newMemory(b.cfg, pub), Subjects: pub.Subjects(), Log: log, Registry: b.telemetry.metrics,
	})
	return nil
}

// assigned holds the devices that the group has assigned to this replica, without
// the forgotten ones. It is empty before the first assignment. It implements
// [outbound.Ownership].
type assigned struct {
	group     *replica.Group
	forgotten forget.List
	owned     atomic.Pointer[func(token string) bool]
}

// known reports whether the group has made an assignment.
func (a *assigned) known() bool { return a.owned.Load() != nil }

// Owns implements [outbound.Ownership]. It does not look at the lease.
func (a *assigned) Owns(token string) bool {
	owned := a.owned.Load()
	return owned != nil && (*owned)(token) && !a.forgotten.Has(token)
}

// Live implements [outbound.Ownership].
func (a *assigned) Live() bool { return a.group.Live() }

// Lapsed implements [outbound.Ownership].
func (a *assigned) Lapsed() bool { return a.group.Lapsed() }

// assign applies an assignment of the group. It returns the polls in flight of the
// devices that were removed.
func (b *Bridge) assign(a replica.Assignment) (polls replica.InFlight) {
	b.api.budget.SetShare(a.Share)
	b.api.budget.FavorPosts(favor(a))
	if a.Suspended {
		return polls // the polls ask Live; the state of the devices is kept
	}
	if a.Moved { // a new share alone does not invalidate the state of the devices
		b.polling.assigned.owned.Store(&a.Owned)
		polls.Ended, polls.Revoke = b.polling.pool.Reassign(a.Gained)
	}
	return polls
}

// load returns the requests that this replica would send in a minute without a
// budget.
func (b *Bridge) load() replica.Load {
	l := replica.Load{Polls: int(min(math.Ceil(b.polling.pool.Demand(b.cfg.PollInterval)), math.MaxInt32))}
	if b.consuming.consumer != nil {
		l.Posts = b.consuming.consumer.Wanted(b.api.budget.Waiting(plaspy.Post) > 0)
	}
	// Polls show whether this replica reaches the API, also while another one posts.
	l.NoAPI = b.api.pollCircuit.State().Open
	return l
}

// favor returns the number of posts for each poll while both wait. Posts get half
// of an even share of the budget, and the rest of this replica's share, which the
// group assigned because this replica posts for all.
func favor(a replica.Assignment) float64 {
	return 2*a.Share*float64(a.Members) - 1
}

// replicasBucket opens the bucket that the replicas share.
func replicasBucket(pub *publisher.Publisher) func(ctx context.Context) (jetstream.KeyValue, error) {
	return func(ctx context.Context) (jetstream.KeyValue, error) {
		return publisher.OpenBucket(ctx, pub.JetStream(), pub.Subjects().ReplicasBucket())
	}
}

// newQuota makes the daily quota of results, with its reservations in the bucket
// of the replicas. Nil means no limit.
func newQuota(results int, pub *publisher.Publisher) *quota.Quota {
	return quota.New(results, quota.NewBucket(replicasBucket(pub)))
}

// newMemory returns the store of the schedule's memory in the bucket of the replicas,
// or nil if the schedule learns nothing.
func newMemory(c config.Config, pub *publisher.Publisher) outbound.Memory {
	if c.Schedule == config.ScheduleFixed {
		return nil
	}
	return memory.New(replicasBucket(pub))
}

func newPolicy(c config.Config) *schedule.Schedule {
	if c.Schedule == config.ScheduleFixed {
		return schedule.NewFixed(c.PollInterval)
	}
	return schedule.NewAdaptive(schedule.AdaptiveOptions{
		Interval: c.PollInterval, TripStartWeight: c.TripStartWeight, Seed: uint64(time.Now().UnixNano()),
	})
}

// openConsumer makes the consumer side, unless it is switched off.
func (b *Bridge) openConsumer(context.Context) error {
	if !b.cfg.Inbound {
		return nil
	}
	log := b.logger("inbound")
	forms, err := message.ParseForms(b.cfg.InboundForms)
	if err != nil {
		return err
	}
	b.consuming.consumer, err = inbound.New(inbound.Options{
		JetStream: b.broker.pub.JetStream(), Subjects: b.broker.pub.Subjects(), API: countedPosts{b.api.client, &b.telemetry.live.postCalls},
		Circuit: b.api.postCircuit, Renew: func() { b.api.tokens.Renew(auth.Token{}) }, Source: b.api.client.DeviceURL,
		Seat: seat{b.group, b.broker.keeper}, Directory: newAccountDevices(b.api.client),
		Trace: b.telemetry.tracer, Echo: b.consuming.echoes, Reader: message.Reader{Forms: forms},
		Workers: b.cfg.InboundWorkers, MaxAge: b.cfg.InboundMaxAge, BackoffInitial: b.cfg.BackoffInitial, BackoffMax: b.cfg.BackoffMax,
		Grace: b.cfg.ShutdownTimeout / 2, Progress: b.telemetry.live.inbound.Beat, Log: log, Registerer: b.telemetry.metrics,
	})
	if err != nil {
		return fmt.Errorf("inbound consumer: %w", err)
	}
	return nil
}

// seat is the posting seat, which this replica takes only when the streams exist.
type seat struct {
	*replica.Group
	keeper *streams.Keeper
}

// AwaitPosts waits for the streams, and then for the seat.
func (s seat) AwaitPosts(ctx context.Context) (context.Context, error) {
	if err := s.keeper.Await(ctx); err != nil {
		return nil, err
	}
	return s.Group.AwaitPosts(ctx)
}

// openServer opens the listener and makes the server of health, metrics, the live
// view and the feed.
func (b *Bridge) openServer(ctx context.Context) error {
	if b.cfg.HTTPAddr == "" {
		return nil
	}
	var err error
	if b.web.listener, err = ops.Listen(ctx, b.cfg.HTTPAddr); err != nil {
		return fmt.Errorf("BRIDGE_HTTP_ADDR: %w", err)
	}
	b.logger("http").Info("http server started", "url", "http://"+b.web.listener.Addr().String())
	b.web.view = b.newView()
	b.web.server = ops.New(b.web.listener, ops.Options{
		Health: b.telemetry.health, Gatherer: b.telemetry.metrics, Token: b.cfg.HTTPToken.Reveal(), Pprof: b.cfg.Pprof, Version: b.version,
		Log: b.logger("http"), View: b.web.view, Feed: newFeed(b.broker.pub, b.api.client, b.logger("feed"), b.telemetry.metrics),
	})
	b.closers.add("HTTP server", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		return b.web.server.Shutdown(ctx)
	})
	return nil
}
