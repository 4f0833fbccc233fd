package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"plaspy-bridge/auth"
	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/inbound"
	"plaspy-bridge/bridge/inbound/echo"
	"plaspy-bridge/bridge/ops"
	"plaspy-bridge/bridge/outbound"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/replica"
	"plaspy-bridge/bridge/streams"
	"plaspy-bridge/bridge/trace"
	"plaspy-bridge/bridge/view"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/embedded"
)

// Bridge is one running bridge. Make it with [New], run it once with
// [Bridge.Run].
type Bridge struct {
	cfg     config.Config
	version string
	log     *slog.Logger

	telemetry   telemetry
	api         api
	broker      broker
	group       *replica.Group
	polling     polling
	consuming   consuming
	querying    querying
	controlling controlling
	web         web

	stopping atomic.Bool
	fatal    chan error
	closers  closers
}

// telemetry is everything that the bridge reports about itself.
type telemetry struct {
	health  *ops.Health
	metrics *prometheus.Registry
	live    *liveness
	tracer  *trace.Tracer // nil if there are no traces
}

// api is everything between the bridge and the REST API.
type api struct {
	keys        *config.KeySource
	budget      *plaspy.Budget
	pollCircuit *plaspy.Circuit
	postCircuit *plaspy.Circuit
	tokens      *auth.Manager
	client      *plaspy.Client
}

// broker is everything between the bridge and NATS.
type broker struct {
	embedded *embedded.Server // nil if NATS_URL is set
	conn     *publisher.Conn
	pub      *publisher.Publisher
	keeper   *streams.Keeper
}

// polling is the polling side.
type polling struct {
	pool     *outbound.Pool
	assigned assigned // the devices that the pool polls
}

// consuming is the consumer side. Both are nil if it is off.
type consuming struct {
	echoes   *echo.Tracker
	consumer *inbound.Consumer
}

// web is the HTTP side. All are nil if BRIDGE_HTTP_ADDR is set to nothing.
type web struct {
	listener net.Listener
	server   *ops.Server
	view     *view.View
}

// closers are the steps of the teardown. They run last in, first out.
type closers []closer

// closer closes one part.
type closer struct {
	part  string
	close func() error
}

func (c *closers) add(part string, f func() error) { *c = append(*c, closer{part, f}) }

// close runs all steps, also after errors, and removes them.
func (c *closers) close() error {
	var errs []error
	for _, step := range slices.Backward(*c) {
		if err := step.close(); err != nil {
			errs = append(errs, fmt.Errorf("close %s: %w", step.part, err))
		}
	}
	*c = nil
	return errors.Join(errs...)
}

// New makes a bridge from a configuration that [config.Load] returned without an
// error. It starts the embedded server, the connection to NATS, which is retried in
// the background, and the listener. The rest starts in Run. The API, the pages and
// the traces show the version.
func New(ctx context.Context, cfg config.Config, version string, log *slog.Logger) (*Bridge, error) {
	health := ops.NewHealth("lifecycle")
	b := &Bridge{cfg: cfg, version: version, log: log, fatal: make(chan error, 4)}
	b.telemetry = telemetry{health: health, metrics: ops.NewRegistry(health), live: newLiveness(health, livenessAge(cfg), cfg.Inbound)}
	for _, open := range []func(context.Context) error{
		b.openTelemetry, b.openAPI, b.openNATS, b.openGroup, b.openPool, b.openConsumer, b.openControl, b.openQueries, b.openServer,
	} {
		if err := open(ctx); err != nil {
			return nil, errors.Join(err, b.closers.close())
		}
	}
	return b, nil
}

// HTTPAddr returns the address that health, metrics and the page are served on,
// or nil.
func (b *Bridge) HTTPAddr() net.Addr {
	if b.web.listener == nil {
		return nil
	}
	return b.web.listener.Addr()
}

// ClientURL returns the URL of the embedded server for other programs, or "" if
// there is no embedded server.
func (b *Bridge) ClientURL() string {
	if b.broker.embedded == nil {
		return ""
	}
	return b.broker.embedded.ClientURL()
}

// Metrics returns the registry behind /metrics, for further metrics of the process.
func (b *Bridge) Metrics() prometheus.Registerer { return b.telemetry.metrics }

// fail ends Run with an error.
func (b *Bridge) fail(err error) {
	select {
	case b.fatal <- err:
	default: // one reason is enough
	}
}

// Run runs the bridge until ctx is cancelled, then stops it within the shutdown
// timeout. Its error is nil unless a part that the bridge needs broke for good, or
// could not be closed.
func (b *Bridge) Run(ctx context.Context) error {
	// The loops of serve must outlive the polls and the posts, which need them.
	working, stopWork := context.WithCancel(ctx)
	defer stopWork()
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	var servers, work sync.WaitGroup
	b.serve(serving, &servers)
	b.work(working, &work)

	var broken error
	select {
	case <-ctx.Done():
		b.log.Info("stopping")
	case broken = <-b.fatal:
		b.log.Error("stopping because of an unrecoverable error", "err", broken)
	}
	start := time.Now()
	b.stopping.Store(true)
	b.telemetry.health.Report("lifecycle", b.lifecycle())
	stopped := make(chan error, 1)
	go func() { stopped <- b.stop(start, stopWork, &work, stopServing, &servers) }()
	select {
	case err := <-stopped:
		b.log.Info("stopped", "elapsed", time.Since(start).Round(time.Millisecond))
		return errors.Join(broken, err)
	case <-time.After(b.cfg.ShutdownTimeout):
		// Each step has its own limit. A step that hangs nevertheless, in the kernel or
		// in a library, ends with the process.
		return errors.Join(broken, errors.New("not stopped within BRIDGE_SHUTDOWN_TIMEOUT"))
	}
}

// stop ends the work, then the parts that the work needed. It returns the errors of
// closing them.
func (b *Bridge) stop(start time.Time, stopWork func(), work *sync.WaitGroup, stopServing func(), servers *sync.WaitGroup) error {
	stopWork()
	ended := make(chan struct{})
	go func() {
		work.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(b.cfg.ShutdownTimeout * 7 / 10):
		// A server that does not answer holds up each of its callers for its own time
		// limit. Closing the connection below ends them all.
		b.log.Warn("polls and posts did not end in time, closing the connections")
	}
	drain, cancel := context.WithDeadline(context.Background(), start.Add(b.cfg.ShutdownTimeout*8/10))
	defer cancel()
	if err := b.broker.pub.Drain(drain); err != nil {
		b.log.Warn("stopped before all events were stored; the next start publishes each device's newest state", "err", err)
	}
	stopServing()
	servers.Go(func() { b.flushTraces(start) }) // concurrently, because it takes time
	err := b.closers.close()
	servers.Wait()
	select {
	case <-ended:
	case <-time.After(time.Until(start.Add(b.cfg.ShutdownTimeout * 95 / 100))):
	}
	return err
}

// serve starts the loops that polls and posts need until they have ended.
func (b *Bridge) serve(ctx context.Context, wg *sync.WaitGroup) {
	wg.Go(func() { b.broker.pub.Run(ctx) })
	wg.Go(func() {
		if err := b.api.tokens.Run(ctx); err != nil && ctx.Err() == nil {
			b.fail(fmt.Errorf("token manager: %w", err))
		}
	})
	wg.Go(func() { b.api.keys.Watch(ctx, b.api.tokens.Retry) })
	wg.Go(func() { b.broker.keeper.Run(ctx, b.broker.conn, b.broker.pub, b.polling.pool.Resync) })
	wg.Go(func() { b.watch(ctx) })
	wg.Go(func() { b.controlling.watcher.Run(ctx, b.controlling.apply) })
	if b.web.server == nil {
		return
	}
	wg.Go(func() { b.web.view.Run(ctx) })
	wg.Go(func() {
		if err := b.web.server.Serve(); err != nil && ctx.Err() == nil {
			b.fail(fmt.Errorf("HTTP server: %w", err))
		}
	})
}

// lastPolls is how long the polls in flight may take at a stop before another
// replica takes over the devices.
const lastPolls = time.Second

// work starts the polls, the posts, the query service and the membership, which assigns
// this replica its part of the polls and posts.
//
// At a stop the polls in flight end before this replica leaves the group. If there
// are other replicas, an answer that arrives afterwards is dropped, because it may be
// older than one that another replica has published.
func (b *Bridge) work(ctx context.Context, wg *sync.WaitGroup) {
	member, leave := context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() { time.AfterFunc(lastPolls, leave) })
	wg.Go(func() {
		defer leave()
		b.polling.pool.Run(ctx)
	})
	if b.querying.service != nil {
		wg.Go(func() { b.querying.run(ctx, b.broker.keeper, b.logger("query")) })
	}
	wg.Go(func() {
		if err := b.group.Run(member, b.load, b.assign); err != nil {
			b.log.Warn("could not announce shutdown to the other replicas", "err", err)
		}
	})
	wg.Go(func() {
		b.polling.assigned.forgotten.Watch(ctx, replicasBucket(b.broker.pub), b.logger("forget"), func() {
			_, revoke := b.polling.pool.Reassign(true)
			revoke() // a turn in flight does not publish a forgotten device
		})
	})
	if b.consuming.consumer == nil {
		return
	}
	wg.Go(func() {
		b.consuming.echoes.Run(ctx, b.broker.pub.JetStream(), b.broker.pub.Subjects(), b.logger("inbound"))
	})
	wg.Go(func() { b.consuming.consumer.Run(ctx) })
}

// flushTraces exports the remaining traces after a stop that began at start. It
// takes at most a fifth of the shutdown timeout, and no more than is left of it.
func (b *Bridge) flushTraces(start time.Time) {
	whole := b.cfg.ShutdownTimeout
	ctx, cancel := context.WithTimeout(context.Background(), min(whole/5, time.Until(start.Add(whole*9/10))))
	defer cancel()
	if err := b.telemetry.tracer.Shutdown(ctx); err != nil {
		b.log.Warn("stopped before all traces were exported", "component", "trace", "err", err)
	}
}
