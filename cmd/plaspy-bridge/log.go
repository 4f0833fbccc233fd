package main

import (
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/lmittmann/tint"

	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/ops"
)

// logFlush is how long the process waits for its log's reader before it exits.
const logFlush = time.Second

// openLog returns the process's logger, which writes to w through a queue, and
// the queue. Call flush at the end of the process.
func openLog(c config.Config, level slog.Leveler, w io.Writer) (log *slog.Logger, queue *ops.LogQueue, flush func()) {
	queue = ops.NewLogQueue(w)
	log = newLogger(c, level, queue, isTerminal(w))
	go queue.Run(func(dropped uint64) {
		log.Warn("log lines dropped because the log reader stalled or closed", "count", dropped)
	})
	return log, queue, func() { queue.Close(logFlush) }
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

// levelOf returns the level of the log, which can be changed at run time.
func levelOf(c config.Config) *slog.LevelVar {
	level := &slog.LevelVar{}
	level.Set(c.LogLevel)
	return level
}

// isTerminal reports whether w is a character device. That includes /dev/null,
// which is harmless, and needs no system-specific call.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// warn logs the warnings of Load.
func warn(log *slog.Logger, warnings []config.Warning) {
	for _, w := range warnings {
		log.Warn("setting looks wrong", "variable", w.Variable, "problem", w.Problem)
	}
}
