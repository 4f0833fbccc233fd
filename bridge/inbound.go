package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/inbound"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/query"
	"plaspy-bridge/publisher"
)

// openInbound makes the consumer side, unless it is switched off, and the query
// service.
func (b *Bridge) openInbound(version string) error {
	log := b.log.With("component", "query")
	var err error
	b.queries, err = query.New(query.Options{
		Conn: b.conn.Conn, Subjects: b.pub.Subjects(), API: b.client, Why: b.pool.Why, Ours: b.pool.Polls, Version: version, Trace: b.tracer, Log: log,
	})
	if err != nil {
		return fmt.Errorf("query service: %w", err)
	}
	if !b.cfg.Inbound {
		return nil
	}
	log = b.log.With("component", "inbound")
	b.consumer, err = inbound.New(inbound.Options{
		JetStream: b.pub.JetStream(), Subjects: b.pub.Subjects(), API: countedPosts{b.client, &b.sent},
		Circuit: plaspy.NewCircuit(plaspy.CircuitOptions{
			Name: "posts", Initial: b.cfg.BackoffInitial, Max: b.cfg.BackoffMax, Log: log, Registerer: b.metrics,
		}),
		Renew:   func() { b.tokens.Renew() },
		Source:  b.client.DeviceURL,
		Lease:   &lateLease{keeper: b.keeper, pub: b.pub, replica: b.cfg.ReplicaID, log: log},
		Trace:   b.tracer,
		Origins: b.origins,
		Workers: b.cfg.InboundWorkers, MaxAge: b.cfg.InboundMaxAge, BackoffInitial: b.cfg.BackoffInitial, BackoffMax: b.cfg.BackoffMax,
		Grace: b.cfg.ShutdownTimeout / 2, Progress: b.live.inbound.Beat, Log: log, Registerer: b.metrics,
	})
	if err != nil {
		return fmt.Errorf("inbound consumer: %w", err)
	}
	return nil
}

// runInbound runs what openInbound made until the context ends.
func (b *Bridge) runInbound(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { b.runQueries(ctx) })
	if b.consumer != nil {
		wg.Go(func() { b.origins.Run(ctx, b.pub.JetStream(), b.pub.Subjects(), b.log.With("component", "inbound")) })
		wg.Go(func() {
			if err := b.consumer.Run(ctx); err != nil && ctx.Err() == nil {
				b.fail(fmt.Errorf("inbound consumer: %w", err))
			}
		})
	}
	wg.Wait()
}

// runQueries sets the query service up again where NATS refuses it, which a
// change of permissions may mend.
func (b *Bridge) runQueries(ctx context.Context) {
	const retry = 10 * time.Second
	told := ""
	for b.keeper.await(ctx) == nil {
		err := b.queries.Run(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		if err.Error() != told {
			told = err.Error()
			b.log.Warn("query service not set up, trying again", "component", "query", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(retry):
		}
	}
}

// inboundHealth tells the health how the consumer fares: without it the bridge
// still polls, and is ready to.
func (b *Bridge) inboundHealth() {
	if b.consumer == nil {
		return
	}
	part := b.health.Part("inbound")
	if trouble := b.consumer.Trouble(); trouble != "" {
		part.Degraded(trouble)
	} else if reason := b.consumer.Degraded(); reason != "" {
		part.Degraded(reason)
	} else {
		part.OK()
	}
}

// lateLease is the lease of the consumer side, whose bucket can only be opened
// once NATS is there.
type lateLease struct {
	keeper  *keeper
	pub     *publisher.Publisher
	replica string
	log     *slog.Logger

	lease *inbound.KVLease
}

// Hold waits for NATS, and then for the lease.
func (l *lateLease) Hold(ctx context.Context) (inbound.Term, error) {
	for l.lease == nil {
		if err := l.keeper.await(ctx); err != nil {
			return inbound.Term{}, err
		}
		bucket, err := l.pub.JetStream().KeyValue(ctx, l.pub.Subjects().ReplicasBucket())
		if err == nil {
			l.lease = inbound.NewKVLease(bucket, "inbound", l.replica, 0, l.log)
			break
		}
		if errors.Is(err, jetstream.ErrBucketNotFound) {
			l.log.Warn("bucket is missing", "stream", l.pub.Subjects().ReplicasBucket())
		}
		select {
		case <-ctx.Done():
			return inbound.Term{}, context.Cause(ctx)
		case <-time.After(time.Second):
		}
	}
	return l.lease.Hold(ctx)
}
