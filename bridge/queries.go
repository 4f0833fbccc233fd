package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/ops"
	"plaspy-bridge/bridge/outbound"
	"plaspy-bridge/bridge/outbound/quota"
	"plaspy-bridge/bridge/query"
	"plaspy-bridge/bridge/streams"
	"plaspy-bridge/publisher"
)

// querying is the query side.
type querying struct {
	service *query.Service  // nil if it is off
	conn    *publisher.Conn // nil if the query service has no NATS user of its own
}

// openQueries makes the query service, unless it is switched off, and its
// connection if it has a NATS user of its own.
func (b *Bridge) openQueries(ctx context.Context) error {
	if !b.cfg.Query {
		return nil
	}
	log, conn := b.logger("query"), b.broker.conn
	if o, own := b.cfg.QueryOptions("plaspy-bridge query " + b.cfg.ReplicaID); own {
		if b.broker.embedded != nil {
			o.InProcess = b.broker.embedded
		}
		o.OnClosed = func(err error) { b.fail(fmt.Errorf("NATS client of the query service closed: %w", err)) }
		var err error
		if conn, err = publisher.ConnectContext(ctx, o, log, nil); errors.Is(err, publisher.ErrCredentials) {
			return config.Faults{{Variable: "NATS_QUERY_CREDS or NATS_QUERY_NKEY", Problem: "names a file that cannot be used: " + err.Error()}}
		} else if err != nil {
			return err
		}
		b.querying.conn = conn
		b.closers.add("NATS connection of the query service", func() error { return conn.Shut(0) })
	}
	var err error
	b.querying.service, err = query.New(query.Options{
		Conn: conn.Conn, Subjects: b.broker.pub.Subjects(), Devices: b.api.client, History: b.api.client,
		Why: b.polling.pool.Why, Ours: b.polling.pool.Polls, Poll: pollNow(b.polling.pool),
		Version: b.version, Trace: b.telemetry.tracer, Log: log,
	})
	if err != nil {
		return fmt.Errorf("query service: %w", err)
	}
	return nil
}

// run runs the query service until ctx is cancelled, and again if it ends with an
// error. It waits for the streams before.
func (q *querying) run(ctx context.Context, keeper *streams.Keeper, log *slog.Logger) {
	const retry = 10 * time.Second
	logged := ""
	for keeper.Await(ctx) == nil {
		err := q.service.Run(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		if err.Error() != logged {
			logged = err.Error()
			log.Warn("could not start the query service, retrying", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(retry):
		}
	}
}

// state is never down: without its query service the bridge polls and posts.
func (q *querying) state() ops.State {
	if trouble := q.conn.Trouble(); trouble != "" {
		return ops.Degraded(trouble)
	}
	if denied := q.conn.Denied(); denied != "" {
		return ops.Degraded(denied)
	}
	return ops.Up()
}

// pollNow returns the function that polls a device for the query service.
func pollNow(pool *outbound.Pool) func(ctx context.Context, id string) ([]byte, error) {
	return func(ctx context.Context, id string) ([]byte, error) {
		answer, err := pool.Poll(ctx, id)
		switch {
		case errors.Is(err, outbound.ErrUnknown), errors.Is(err, outbound.ErrForgotten):
			return nil, query.Refuse(http.StatusNotFound, err.Error())
		case errors.Is(err, outbound.ErrElsewhere):
			return nil, query.Elsewhere()
		case errors.Is(err, outbound.ErrPaused):
			return nil, query.Refuse(http.StatusConflict, err.Error())
		case errors.Is(err, outbound.ErrHeld):
			return nil, query.Refuse(http.StatusServiceUnavailable, err.Error())
		case errors.Is(err, quota.ErrUsedUp):
			return nil, query.Refuse(http.StatusTooManyRequests, err.Error())
		}
		return answer, err
	}
}
