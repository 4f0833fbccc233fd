package bridge

import (
	"context"
	"fmt"
	"strings"
	"time"

	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/ops"
	"plaspy-bridge/bridge/outbound/inventory"
	"plaspy-bridge/bridge/outbound/widespread"
	"plaspy-bridge/bridge/plaspy/daily"
	"plaspy-bridge/bridge/replica"
	"plaspy-bridge/bridge/tick"
)

// part is a row of the health table.
type part struct {
	name  string
	state func() ops.State
}

// parts is the health table. /readyz, the metrics, the log and the live view
// show these states and no others.
func (b *Bridge) parts() []part {
	table := []part{
		{"token", b.unlessStandby(b.api.tokenState)},
		{"devices", b.unlessStandby(func() ops.State { return listState(b.polling.pool.Listed()) })},
		{"api", func() ops.State { return b.api.state(b.polling.pool.Widespread()) }},
		{"nats", b.broker.connState},
		{"streams", b.broker.keeper.Health},
		{"publish", b.broker.publishState},
		{"replica", func() ops.State { return replicaState(b.group) }},
		{"state", b.unlessStandby(func() ops.State { return readState(b.polling.pool.NotReady()) })},
	}
	if b.consuming.consumer != nil {
		table = append(table, part{"inbound", b.consuming.state})
	}
	if b.cfg.DailyUsage > 0 {
		var usage usage
		table = append(table, part{"usage", b.unlessStandby(func() ops.State {
			return usage.state(b.api.budget.Day(), b.polling.pool.Demand(b.cfg.PollInterval))
		})})
	}
	if b.querying.conn != nil {
		table = append(table, part{"queries", b.querying.state})
	}
	return append(table, part{"lifecycle", b.lifecycle}) // last: nothing is ready before each has reported
}

// watch reports the states of the parts and the progress of the work until ctx
// is cancelled.
func (b *Bridge) watch(ctx context.Context) {
	table, states := b.parts(), &stateLog{log: b.logger("health")}
	timer := tick.NewTimer(tick.Grid)
	defer timer.Stop()
	for started := false; ; {
		for _, p := range table {
			b.telemetry.health.Report(p.name, p.state())
		}
		ready, parts := b.telemetry.health.Ready()
		states.look(time.Now(), parts)
		started = started || ready
		if b.stopping.Load() {
			b.telemetry.live.stopping()
		} else {
			b.telemetry.live.look(b.pulse())
		}
		next := tick.Grid / 10
		if started {
			next = tick.Until(time.Now(), tick.Grid)
		}
		timer.Reset(next)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
	}
}

func (b *Bridge) lifecycle() ops.State {
	if b.stopping.Load() {
		return ops.Down("stopping")
	}
	return ops.Up()
}

func (a *api) tokenState() ops.State {
	switch t := a.tokens.State(); {
	case t.Held:
		return ops.Up()
	case t.Refused:
		return ops.Down("the API refuses the key (" + t.Err + "): check PLASPY_USERNAME and the API key")
	case t.Err != "":
		return ops.Down(t.Err)
	default:
		return ops.Down("no token at present; one is requested when it is needed")
	}
}

func listState(list inventory.State) ops.State {
	switch {
	case list.Read && list.Err == "" && list.Devices == 0 && list.Listed > 0:
		return ops.Degraded(fmt.Sprintf("none of the account's %d devices is chosen: check BRIDGE_DEVICES, BRIDGE_DEVICES_EXCLUDE and BRIDGE_GROUPS", list.Listed))
	case list.Read && list.Err == "":
		return ops.Up()
	case list.Read:
		return ops.Degraded("the list of " + list.At.UTC().Format(time.RFC3339) + " is in use: " + list.Err)
	case list.Err != "":
		return ops.Down(list.Err)
	default:
		return ops.Down("the device list was not read yet")
	}
}

// state is never down: if the API is unreachable, the bridge works and resumes by
// itself. w are the failures that all polls have in common.
func (a *api) state(w widespread.State) ops.State {
	if c := a.pollCircuit.State(); c.Open {
		problem := "the API does not answer"
		if c.Foreign {
			problem = "something in front of the API answers instead of it, such as a proxy or a maintenance page,"
		}
		return ops.Degraded(problem + " since " + c.Since.UTC().Format(time.RFC3339) + "; single probes go out until the API answers")
	}
	if w.Polls > 0 {
		return ops.Degraded("the API answers, but no poll of any device succeeds since " + w.Since.UTC().Format(time.RFC3339) + ": " + w.Reason)
	}
	return ops.Up()
}

// usage remembers that the account's daily usage runs short.
type usage struct{ short bool }

// relief is how far the pace must be above the need until the usage is not short any more.
const relief = 1.05

// state is never down: what the account's daily usage permits is carried out. need is the polls a minute that the
// devices of this replica need.
func (u *usage) state(day daily.State, need float64) ops.State {
	if u.short {
		need *= relief
	}
	u.short = day.Short && day.Rate < need
	reached := fmt.Sprintf("PLASPY_DAILY_USAGE of %d is used up", day.Limit)
	if day.Learnt {
		reached = fmt.Sprintf("the API refuses every request since the account's usage today reached %d, which is below PLASPY_DAILY_USAGE", day.Limit)
	}
	switch {
	case day.UsedUp:
		return ops.Degraded(reached + ": requests go on at midnight UTC")
	case u.short:
		return ops.Degraded(fmt.Sprintf("the rest of PLASPY_DAILY_USAGE, which is %d, does not suffice for a poll of every device per interval until midnight UTC: posts go first, polls are less frequent", day.Limit))
	}
	return ops.Up()
}

func (b *broker) connState() ops.State {
	if trouble := b.conn.Trouble(); trouble != "" {
		return ops.Down(trouble)
	}
	if denied := b.conn.Denied(); denied != "" {
		// A missing permission that the bridge needs shows in other parts as well.
		return ops.Degraded(denied)
	}
	return ops.Up()
}

func (b *broker) publishState() ops.State {
	if trouble := b.pub.Trouble(); trouble != "" {
		return ops.Down(strings.TrimSuffix(trouble+"; "+b.conn.Denied(), "; "))
	}
	if some := b.pub.Degraded(); some != "" {
		return ops.Degraded(some)
	}
	return ops.Up()
}

// state is never down: without its consumer the bridge still polls.
func (c *consuming) state() ops.State {
	if trouble := c.consumer.Trouble(); trouble != "" {
		return ops.Degraded(trouble)
	}
	if reason := c.consumer.Degraded(); reason != "" {
		return ops.Degraded(reason)
	}
	return ops.Up()
}

// replicaState is the state of this replica's membership. A replica with different
// settings is degraded, but works with its own settings.
func replicaState(g *replica.Group) ops.State {
	if trouble := g.Trouble(); trouble != "" {
		return ops.Down(trouble)
	}
	if standby := g.Standby(); standby != "" {
		return ops.Degraded(standby)
	}
	if others := disagreement(g.Differences()); others != "" {
		return ops.Degraded(others)
	}
	return ops.Up()
}

// unlessStandby wraps the state of a part that sends requests to the API. A replica
// on standby sends none, and is ready to begin.
func (b *Bridge) unlessStandby(state func() ops.State) func() ops.State {
	return func() ops.State {
		if b.group.Standby() != "" {
			return ops.Degraded("this replica is on standby")
		}
		return state()
	}
}

// readState is the state of the pool's copy of the stream. waits is the reason why
// it was not read yet, or "".
func readState(waits string) ops.State {
	if waits != "" {
		return ops.Down(waits)
	}
	return ops.Up()
}

// disagreement returns one sentence about the replicas with other settings, or "".
func disagreement(list []replica.Difference) string {
	var texts []string
	for _, d := range list {
		var variables []string
		for _, name := range d.Settings {
			variables = append(variables, config.AgreementVariables(name))
		}
		texts = append(texts, fmt.Sprintf("replica %s has other values of %s", d.Replica, strings.Join(variables, ", ")))
	}
	return strings.Join(texts, "; ")
}
