// Package preflight finds out, before the bridge runs or while it does, what
// would keep it from working, and says what to do about each thing.
//
// It changes nothing and disturbs nobody: no stream is created, no event
// published, no consumer of the bridge touched, and the embedded server's store
// is left to whoever uses it. It spends two API requests, three where
// BRIDGE_GROUPS is set.
package preflight

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"plaspy-bridge/bridge/config"
)

// Level tells how bad a finding is.
type Level int

// The levels, from good to bad.
const (
	OK   Level = iota
	Warn       // the bridge works, but a person should know
	Fail       // the bridge would not work
)

// String returns the level as it begins a line: ok, warn or FAIL.
func (l Level) String() string { return [...]string{"ok", "warn", "FAIL"}[l] }

// MarshalText returns the level in lower case: ok, warn or fail.
func (l Level) MarshalText() ([]byte, error) { return []byte(strings.ToLower(l.String())), nil }

// Finding is what one check found. None of it holds a secret.
type Finding struct {
	Level Level  `json:"level"`
	What  string `json:"what"`         // was looked at: token, stream PLASPY_EVENTS, ...
	Text  string `json:"text"`         // was found
	Do    string `json:"do,omitempty"` // about it; empty if the level is OK
}

// String returns the finding as one line.
func (f Finding) String() string {
	line := fmt.Sprintf("%-4s %s: %s", f.Level, f.What, f.Text)
	if f.Do != "" {
		line += ": " + f.Do
	}
	return line
}

// check is one run of all checks.
type check struct {
	cfg    config.Config
	report func(Finding)
	count  [Fail + 1]int
	log    *slog.Logger
}

// Counts tells how many findings of each level there were.
type Counts struct{ OK, Warn, Fail int }

// Run checks everything that cfg, which Load found good, leads to, and hands
// each finding to report as it comes. warnings are Load's; agent is the
// User-Agent for the API. What depends on something that failed is left out.
// Each request takes at most cfg.Timeout.
func Run(ctx context.Context, cfg config.Config, warnings []config.Warning, agent string, report func(Finding)) Counts {
	c := &check{cfg: cfg, report: report, log: slog.New(slog.DiscardHandler)}
	c.configuration(warnings)
	c.api(ctx, agent)
	c.httpPort(ctx)
	if cfg.Embedded() {
		c.embedded(ctx)
	} else {
		c.nats(ctx)
	}
	return Counts{c.count[OK], c.count[Warn], c.count[Fail]}
}

func (c *check) say(l Level, what, text, do string) {
	c.count[l]++
	c.report(Finding{l, what, oneLine(text), do})
}

func (c *check) ok(what, format string, args ...any) {
	c.say(OK, what, fmt.Sprintf(format, args...), "")
}

func (c *check) configuration(warnings []config.Warning) {
	set := 0
	for _, s := range c.cfg.Settings(nil) {
		if s.Set {
			set++
		}
	}
	c.ok("configuration", "%d variables set, the others have their defaults", set)
	for _, w := range warnings {
		c.say(Warn, "configuration", w.String(), "correct or remove it; plaspy-bridge env shows every variable")
	}
}

// limited bounds one question.
func (c *check) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, c.cfg.Timeout, fmt.Errorf("no answer within PLASPY_TIMEOUT, %s", c.cfg.Timeout))
}

// reason is an error's text, or, where the context ended it, why that did.
func reason(ctx context.Context, err error) string {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		if cause := context.Cause(ctx); cause != nil {
			return cause.Error()
		}
	}
	return err.Error()
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
