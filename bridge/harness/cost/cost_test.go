package cost_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"plaspy-bridge/bridge/harness/cost"
	"plaspy-bridge/bridge/harness/process"
	"plaspy-bridge/publisher/natstest/loopback"
)

var (
	measure = flag.Bool("measure", false, "run TestCost; with -short for a few seconds only")
	fleets  = flag.String("devices", "1000,10000,100000", "the sizes of the fleets, with commas")
	rounds  = flag.Int("rounds", 2, "how often each client has its turn")
	window  = flag.Duration("window", 10*time.Second, "how long a client is measured in each turn")
	before  = flag.String("before", "", "another binary of the bridge, which is measured in the same run")
	folder  = flag.String("profiles", "", "a folder for CPU profiles of the bridge")
	only    = flag.String("loads", "", "only the loads whose names contain this")
)

// The variables that make this program a client.
const bareMode, scriptMode = "COST_BARE", "COST_SCRIPT"

func TestMain(m *testing.M) {
	if task := os.Getenv(cost.TaskEnv); task != "" {
		fmt.Fprintln(os.Stderr, work(task))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// work does a client's work until the process is killed.
func work(task string) error {
	var t cost.Task
	if err := json.Unmarshal([]byte(task), &t); err != nil {
		return err
	}
	if os.Getenv(scriptMode) != "" {
		return cost.Script(context.Background(), t)
	}
	return cost.Bare(context.Background(), t)
}

// TestCost measures processes side by side:
//
//	go test ./bridge/harness/cost -measure -v -timeout 60m
func TestCost(t *testing.T) {
	if !*measure {
		t.Skip("starts whole processes; run with -measure")
	}
	binaries, err := process.Build(t.Context(), t.TempDir(), false)
	ok(t, err)
	m := &cost.Measurement{Binaries: binaries, Ports: &loopback.Ports{}, Dir: t.TempDir(), Window: *window, Limit: 10 * time.Minute, Profiles: *folder}
	if testing.Short() {
		m.Window, *rounds, *fleets = 2*time.Second, 1, "1000"
	}
	var list []string
	for size := range strings.SplitSeq(*fleets, ",") {
		n, err := strconv.Atoi(size)
		ok(t, err)
		for _, l := range loads(n) {
			if strings.Contains(l.String(), *only) {
				list = append(list, compare(t, m, l, binaries.Bridge))
			}
		}
	}
	t.Logf("\n%s", strings.Join(list, "\n"))
}

// loads are those of a fleet. The largest one is polled once a minute.
func loads(devices int) []cost.Load {
	l := []cost.Load{
		{Devices: devices, Changed: 0.05}, {Devices: devices, Changed: 1},
		{Devices: devices, Changed: 0.2, Rate: max(1000, devices/60)},
	}
	if devices <= 1000 { // the default budget
		l = append(l, cost.Load{Devices: 100, Changed: 0.05, Rate: 10, Budget: 600})
	}
	return l
}

// compare measures the clients at a load in turns.
func compare(t *testing.T, m *cost.Measurement, l cost.Load, bridge string) string {
	t.Helper()
	bare, err := cost.Helper("bare loop", bareMode, false)
	ok(t, err)
	same, err := cost.Helper(cost.SameMessages, bareMode, true)
	ok(t, err)
	script, err := cost.Helper("script", scriptMode, false)
	ok(t, err)
	var more []string
	if *folder != "" {
		more = append(more, "BRIDGE_PPROF=true")
	}
	clients := []cost.Client{cost.Bridge("bridge", bridge, more...)}
	if *before != "" {
		clients = append(clients, cost.Bridge("bridge before", *before, more...))
	}
	switch {
	case l.Rate > 0:
		clients = slices.Insert(clients, 0, script, bare, same)
	default:
		clients = slices.Insert(clients, 0, bare, same)
	}
	rows := make([]cost.Row, len(clients))
	for round := range *rounds {
		for turn := range clients {
			i := (turn + round) % len(clients) // the place in a round would favour one of two equal clients
			c := clients[i]
			f, err := m.Run(t.Context(), c, l)
			ok(t, err)
			rows[i].Name = c.Name
			rows[i].Add(&f)
			t.Logf("%v, round %d, %s: every device was polled after %.1f s", l, round+1, c.Name, f.Warm.Seconds())
		}
	}
	table := cost.Table(l, rows)
	t.Logf("\n%s", table)
	return table
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestStarts measures restarts and takeovers with a full stream:
//
//	go test ./bridge/harness/cost -run TestStarts -measure -v -timeout 60m
func TestStarts(t *testing.T) {
	if !*measure {
		t.Skip("starts whole processes; run with -measure")
	}
	binaries, err := process.Build(t.Context(), t.TempDir(), false)
	ok(t, err)
	m := &cost.Measurement{Binaries: binaries, Ports: &loopback.Ports{}, Dir: t.TempDir(), Limit: 10 * time.Minute}
	if testing.Short() {
		*fleets = "1000"
	}
	var rows []cost.Starts
	for size := range strings.SplitSeq(*fleets, ",") {
		n, err := strconv.Atoi(size)
		ok(t, err)
		s, err := m.Starts(t.Context(), binaries.Bridge, n)
		ok(t, err)
		rows = append(rows, s)
	}
	t.Logf("\n%s", cost.StartsTable(rows))
}
