// Package preflight checks a configuration against the API, the NATS server and
// this machine. It reports each problem with its remedy, before the bridge runs or
// while it does.
//
// The checks have no side effects. They create no stream, publish no event, use no
// consumer of the bridge and do not open the embedded server's store. They send two
// API requests, or three if BRIDGE_GROUPS is set.
package preflight

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"plaspy-bridge/bridge/config"
)

// Level is the severity of a finding.
type Level int

// The levels, in increasing severity.
const (
	OK   Level = iota
	Warn       // the bridge works, with a limitation or a risk
	Fail       // the bridge does not work
)

// String returns the first word of a finding's line: ok, warn or FAIL.
func (l Level) String() string { return [...]string{"ok", "warn", "FAIL"}[l] }

// MarshalText returns the level in lower case: ok, warn or fail.
func (l Level) MarshalText() ([]byte, error) { return []byte(strings.ToLower(l.String())), nil }

// Finding is the result of one check. It contains no secrets.
type Finding struct {
	Level Level  `json:"level"`
	What  string `json:"what"`         // the checked item: token, stream PLASPY_EVENTS, ...
	Text  string `json:"text"`         // the result
	Do    string `json:"do,omitempty"` // the remedy; empty if the level is OK
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

// Counts has the number of findings of each level.
type Counts struct{ OK, Warn, Fail int }

// Run runs all checks and passes each finding to report. cfg and warnings are the
// results of [config.Load]; agent is the User-Agent of the API requests. Run skips a
// check if another one that it depends on has failed. Each request takes at most
// cfg.Timeout.
func Run(ctx context.Context, cfg config.Config, warnings []config.Warning, agent string, report func(Finding)) Counts {
	c := &check{cfg: cfg, report: report, log: slog.New(slog.DiscardHandler)}
	c.configuration(warnings)
	c.api(ctx, agent)
	c.httpPort(ctx)
	c.collector(ctx)
	if cfg.Embedded() {
		c.embedded(ctx)
	} else {
		c.nats(ctx)
	}
	return Counts{c.count[OK], c.count[Warn], c.count[Fail]}
}

func (c *check) say(l Level, item, text, do string) {
	c.count[l]++
	c.report(Finding{l, item, oneLine(text), do})
}

func (c *check) ok(item, format string, args ...any) {
	c.say(OK, item, fmt.Sprintf(format, args...), "")
}

func (c *check) configuration(warnings []config.Warning) {
	set := 0
	for _, s := range c.cfg.Settings(nil) {
		if s.Set {
			set++
		}
	}
	c.ok("configuration", "%d variables are set, the others have their defaults", set)
	for _, w := range warnings {
		c.say(Warn, "configuration", w.String(), "correct or remove it; plaspy-bridge env shows every variable")
	}
}

// limited returns a context for one request.
func (c *check) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, c.cfg.Timeout, fmt.Errorf("no answer within PLASPY_TIMEOUT, %s", c.cfg.Timeout))
}

// reason returns the text of err, or the cause of ctx's end if err is due to that.
func reason(ctx context.Context, err error) string {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		if cause := context.Cause(ctx); cause != nil {
			return cause.Error()
		}
	}
	return err.Error()
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
