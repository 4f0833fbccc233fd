package bridge

import (
	"context"
	"errors"
	"fmt"
	"time"

	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/trace"
)

// openTraces makes the tracer, which is nil unless an endpoint is set.
func (b *Bridge) openTraces(ctx context.Context, version string) error {
	o := b.cfg.TraceOptions(version)
	log := b.log.With("component", "trace")
	var err error
	b.tracer, err = trace.New(ctx, o, log, b.metrics)
	if errors.Is(err, trace.ErrFile) {
		return config.Faults{{Variable: "OTEL_EXPORTER_OTLP_CERTIFICATE or OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", Problem: "names a file that cannot be used: " + err.Error()}}
	}
	if err != nil {
		return fmt.Errorf("traces: %w", err)
	}
	if b.tracer != nil {
		log.Info("traces are exported", "url", config.Endpoint(o.Endpoint), "protocol", o.Protocol, "sampler", o.Sampler)
	}
	// Where the bridge does not come to run, there is nothing to send.
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
