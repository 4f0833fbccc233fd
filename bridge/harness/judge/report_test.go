package judge_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"plaspy-bridge/bridge/harness/judge"
	"plaspy-bridge/bridge/harness/timeline"
)

// TestAddLife accepts the ends that the harness caused, and no others.
func TestAddLife(t *testing.T) {
	long, short := span(0, 10), span(0, 0.2)
	for _, test := range []struct {
		name string
		life timeline.Life
		want string
	}{
		{"killed", timeline.Life{Span: long, Killed: true, Status: -1}, ""},
		{"stopped", timeline.Life{Span: long, Asked: true}, ""},
		{"stopped before it handled signals", timeline.Life{Span: short, Asked: true, Status: -1}, ""},
		{"ended by SIGTERM", timeline.Life{Span: long, Asked: true, Status: -1}, "b ended with status -1 after SIGTERM, 10s after its start"},
		{"failed to stop", timeline.Life{Span: short, Asked: true, Status: 1}, "b ended with status 1 after SIGTERM, 200ms after its start"},
		{"ended by itself", timeline.Life{Span: long}, "b ended by itself with status 0, 10s after its start"},
		{"crashed", timeline.Life{Span: short, Status: 2}, "b ended by itself with status 2, 200ms after its start"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var r judge.Report
			test.life.CPU, test.life.RSS = time.Second, 7
			r.AddLife("b", test.life)
			r.AddLife("other", timeline.Life{Span: long, Killed: true, CPU: time.Second, RSS: 5})
			if got := strings.Join(r.Problems, "\n"); got != test.want {
				t.Errorf("got problem %q, want %q", got, test.want)
			}
			if r.CPU != 2*time.Second || r.RSS != 7 {
				t.Errorf("got CPU time %v and memory %d, want 2s and 7", r.CPU, r.RSS)
			}
		})
	}
}

// TestAddRequests holds all bridges together to the limit and to its pace.
func TestAddRequests(t *testing.T) {
	for _, test := range []struct {
		name     string
		requests []judge.Request
		limit    int
		want     judge.Load
		problems int
	}{
		{"no limit", requests(0, 1, 2), 0, judge.Load{Busiest: 3}, 0},
		{"within the limit", requests(0, 20, 40), 3, judge.Load{Busiest: 3, Limit: 3, Ahead: 1}, 0},
		{"too many in a minute", requests(0, 20, 40, 59), 3, judge.Load{Busiest: 4, Limit: 3, Ahead: 1}, 1},
		{"too fast", requests(0, 1, 2), 3, judge.Load{Busiest: 3, Limit: 3, Ahead: 2}, 0},
		{"too many and too fast", requests(0, 1, 2, 3), 3, judge.Load{Busiest: 4, Limit: 3, Ahead: 3}, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			var r judge.Report
			r.AddRequests(test.requests, test.limit)
			if diff := cmp.Diff(r.Load, test.want); diff != "" {
				t.Errorf("got - want +:\n%s", diff)
			}
			if len(r.Problems) != test.problems {
				t.Errorf("got problems %q, want %d", r.Problems, test.problems)
			}
		})
	}
}

// TestErr changes one count of a report without faults at a time.
func TestErr(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(r *judge.Report)
		want   string
	}{
		{"no fault", func(*judge.Report) {}, ""},
		{"excused", func(r *judge.Report) { r.Killed, r.TimedOut, r.Taken, r.Overtaken = 1, 1, 1, 1 }, ""},
		{"lost", func(r *judge.Report) { r.Lost = 2 }, "lost 2"},
		{"duplicated", func(r *judge.Report) { r.Duplicated = 1 }, "duplicated 1"},
		{"reordered", func(r *judge.Report) { r.Reordered = 1 }, "reordered 1"},
		{"different", func(r *judge.Report) { r.Different = 1 }, "byte-different 1"},
		{"stale", func(r *judge.Report) { r.Stale = 1 }, "stale devices 1"},
		{"edges lost", func(r *judge.Report) { r.EdgesLost = 1 }, "alert edges lost 1"},
		{"edges wrong", func(r *judge.Report) { r.EdgesWrong = 1 }, "alert edges wrong 1"},
		{"device events", func(r *judge.Report) { r.DeviceEvents = 1 }, "device additions wrong 1"},
		{"inbound lost", func(r *judge.Report) { r.Inbound.Lost = 1 }, "inbound lost 1"},
		{"inbound reordered", func(r *judge.Report) { r.Inbound.Reordered = 1 }, "inbound reordered 1"},
		{"no result", func(r *judge.Report) { r.Inbound.Unreported = 1 }, "inbound without a result 1"},
		{"allowed repetitions", func(r *judge.Report) { r.Inbound.Repeated, r.Inbound.Allowed = 3, 3 }, ""},
		{"repetitions", func(r *judge.Report) { r.Inbound.Repeated, r.Inbound.Allowed = 3, 1 }, "inbound posted again beyond what kills explain 2"},
		{"nothing published", func(r *judge.Report) { r.Published = 0 }, "nothing was published"},
		{"problem", func(r *judge.Report) { r.Problems, r.Details = []string{"a panic"}, []string{"a detail"} }, "a panic\na detail"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := judge.Report{Counts: judge.Counts{Published: 5}}
			test.change(&r)
			got := ""
			if err := r.Err(); err != nil {
				got = err.Error()
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
