// Package logging makes the process's logger from the settings. Lines go through a
// queue, so that a stalled reader does not hold up the bridge.
package logging

import (
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/lmittmann/tint"

	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/ops"
	"plaspy-bridge/cmd/plaspy-bridge/internal/cli"
)

// Open returns the process's logger, which writes to w through a queue, and
// the queue. Call flush at the end of the process.
func Open(c config.Config, level slog.Leveler, w io.Writer) (log *slog.Logger, queue *ops.LogQueue, flush func()) {
	queue = ops.NewLogQueue(w)
	log = newLogger(c, level, queue, cli.IsTerminal(w))
	go queue.Run(func(dropped uint64) {
		log.Warn("log lines dropped because the log reader stalled or closed", "count", dropped)
	})
	return log, queue, func() { queue.Close(cli.Patience) }
}

// newLogger returns a logger that writes to w. Colours are for a person at a
// terminal, unless NO_COLOR is set (no-color.org).
func newLogger(c config.Config, level slog.Leveler, w io.Writer, person bool) *slog.Logger {
	format := c.LogFormat
	if format == config.LogAuto || format == "" {
		format = config.LogJSON
		if person {
			format = config.LogText
		}
	}
	if format == config.LogText {
		return slog.New(tint.NewTextHandler(w, &tint.Options{
			Level:      level,
			TimeFormat: "15:04:05.000",
			NoColor:    !person || os.Getenv("NO_COLOR") != "",
		}))
	}
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: readable}))
}

// readable spells a duration as the settings do. slog's JSON handler would write
// a number of nanoseconds.
func readable(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		return slog.String(a.Key, a.Value.Duration().Round(time.Microsecond).String())
	}
	return a
}

// Level returns the level of the log, which can be changed at run time.
func Level(c config.Config) *slog.LevelVar {
	level := &slog.LevelVar{}
	level.Set(c.LogLevel)
	return level
}

// Warn logs the warnings of [config.Load].
func Warn(log *slog.Logger, warnings []config.Warning) {
	for _, w := range warnings {
		log.Warn("setting looks wrong", "variable", w.Variable, "problem", w.Problem)
	}
}
