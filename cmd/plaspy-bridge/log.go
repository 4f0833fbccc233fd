package main

import (
	"io"
	"log/slog"
	"os"
	"time"

	"plaspy-bridge/bridge/config"

	"github.com/lmittmann/tint"
)

// newLogger returns the process's logger, writing to w. Colours are for a person
// at a terminal who has not asked for none with NO_COLOR (no-color.org).
func newLogger(c config.Config, w io.Writer) *slog.Logger {
	person := isTerminal(w)
	format := c.LogFormat
	if format == config.LogAuto || format == "" {
		format = config.LogJSON
		if person {
			format = config.LogText
		}
	}
	if format == config.LogText {
		return slog.New(tint.NewTextHandler(w, &tint.Options{
			Level:      c.LogLevel,
			TimeFormat: "15:04:05.000",
			NoColor:    !person || os.Getenv("NO_COLOR") != "",
		}))
	}
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: c.LogLevel, ReplaceAttr: readable}))
}

// readable spells what slog's JSON handler would write as a number of
// nanoseconds the way the settings spell it.
func readable(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		return slog.String(a.Key, a.Value.Duration().Round(time.Microsecond).String())
	}
	return a
}

// isTerminal reports whether w is a character device. That takes /dev/null for a
// terminal as well, where it makes no difference, and wants no system call that
// is different on each system.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// warn logs what Load found odd.
func warn(log *slog.Logger, warnings []config.Warning) {
	for _, w := range warnings {
		log.Warn("doubtful setting", "variable", w.Variable, "problem", w.Problem)
	}
}
