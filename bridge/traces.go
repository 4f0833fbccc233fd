package bridge

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/trace"
)

// openTraces makes the tracer, which is nil unless an endpoint is set.
func (b *Bridge) openTraces(ctx context.Context, version string) error {
	log := b.log.With("component", "trace")
	var err error
	b.tracer, err = trace.New(ctx, trace.Options{Version: version, Instance: b.cfg.ReplicaID}, log, b.metrics)
	if errors.Is(err, trace.ErrFile) {
		variable, problem, _ := strings.Cut(err.Error(), ": ")
		return config.Faults{{Variable: variable, Problem: "names a file that cannot be used: " + problem}}
	}
	if err != nil {
		return fmt.Errorf("traces: %w", err)
	}
	if b.tracer != nil {
		log.Info("traces are exported", "url", config.MaskURL(trace.Endpoint()))
	}
	// If the bridge does not come to run, there is nothing to send.
	b.closing("traces", func() error { b.flushTraces(time.Now()); return nil })
	return nil
}

// flushTraces sends what is left of the traces of a bridge that is being stopped
// since then, in a fifth of the time that a stop may take, or less where less is
// left of it.
func (b *Bridge) flushTraces(start time.Time) {
	whole := b.cfg.ShutdownTimeout
	ctx, cancel := context.WithTimeout(context.Background(), min(whole/5, time.Until(start.Add(whole*9/10))))
	defer cancel()
	if err := b.tracer.Shutdown(ctx); err != nil {
		b.log.Warn("stopped with traces not exported", "component", "trace", "err", err)
	}
}
