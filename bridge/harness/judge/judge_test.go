package judge_test

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"plaspy-bridge/bridge/harness/judge"
	"plaspy-bridge/bridge/harness/timeline"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func second(s float64) time.Time { return noon.Add(time.Duration(s * float64(time.Second))) }

func span(from, to float64) timeline.Span { return timeline.Span{From: second(from), To: second(to)} }

// raw returns a location with a content and an inactiveSeconds, which is no part of it.
func raw(content string, inactive int, alerts ...string) string {
	list := ""
	if len(alerts) > 0 {
		list = `"` + strings.Join(alerts, `","`) + `"`
	}
	return fmt.Sprintf(`{"dateTime":%q,"inactiveSeconds":%d,"alerts":[%s]}`, content, inactive, list)
}

// answers turns "A B B" into answers to life 0, one a second. "A/1" is an answer to life 1.
func answers(text string) []judge.Answer {
	var list []judge.Answer
	for i, word := range strings.Fields(text) {
		content, life, _ := strings.Cut(word, "/")
		n, _ := strconv.Atoi(life)
		list = append(list, judge.Answer{At: second(float64(i)), Life: n, Raw: raw(content, i)})
	}
	return list
}

// events turns "A B" into a stream with the locations of these answers.
func events(shown []judge.Answer, text string) []judge.Event {
	list := []judge.Event{{Seq: 1, ID: "added", Kind: "device", Device: "d", Change: "added"}}
	for i, content := range strings.Fields(text) {
		e := judge.Event{Seq: uint64(i + 2), ID: fmt.Sprint("id", i), Kind: "location", Device: "d", Raw: raw(content, 99)}
		for n, a := range shown {
			if strings.HasPrefix(a.Raw, `{"dateTime":"`+content+`"`) {
				e.Raw, shown = a.Raw, shown[n:]
				break
			}
		}
		list = append(list, e)
	}
	return list
}

func TestOutbound(t *testing.T) {
	whole := []timeline.Life{{Span: span(-1, 100), Asked: true}}
	killedAt := func(s float64) []timeline.Life {
		return []timeline.Life{{Span: span(-1, s), Killed: true}, {Span: span(s, 100), Asked: true}}
	}
	beside := func() timeline.Life { return timeline.Life{Span: span(-1, 100), Asked: true, Bridge: 1} }
	type counts = judge.Counts
	for _, test := range []struct {
		name          string
		shown, stream string
		change        func(c *judge.Case)
		want          counts
	}{
		{"all there", "A B B C", "A B C", nil, counts{Shown: 3, Published: 3}},
		{"back and forth", "A B A", "A B A", nil, counts{Shown: 3, Published: 3}},
		{"lost in the middle", "A B C", "A C", nil, counts{Shown: 3, Published: 2, Lost: 1}},
		{"lost at the end", "A B C C", "A B", nil, counts{Shown: 3, Published: 2, Lost: 1, Stale: 1}},
		{"one state of two alike lost", "A B A", "A B", nil, counts{Shown: 3, Published: 2, Lost: 1, Stale: 1}},
		{"repeated", "A B", "A B B", nil, counts{Shown: 2, Published: 3, Duplicated: 1}},
		{"repeated later", "A B", "A B A", nil, counts{Shown: 2, Published: 3, Reordered: 1, Stale: 1}},
		{"swapped", "A B C", "B A C", nil, counts{Shown: 3, Published: 3, Reordered: 1}},
		{"invented", "A B", "A X B", nil, counts{Shown: 2, Published: 3, Different: 1}},
		{"one byte different", "A", "A", func(c *judge.Case) { c.Events[1].Raw = raw("A", 7) }, counts{Shown: 1, Published: 1, Different: 1}},
		{"same id twice", "A B", "A B", func(c *judge.Case) { c.Events[2].ID = "id0" }, counts{Shown: 2, Published: 2, Duplicated: 1}},
		{"never added", "A", "A", func(c *judge.Case) { c.Events = c.Events[1:] }, counts{Shown: 1, Published: 1, DeviceEvents: 1}},

		{"killed in the next moment", "A B/0 C/1", "A C", func(c *judge.Case) { c.Lives = killedAt(1.5) }, counts{Shown: 3, Published: 2, Killed: 1}},
		{"answered when it was dead", "A B/0 C/1", "A C", func(c *judge.Case) { c.Lives = killedAt(0.9) }, counts{Shown: 3, Published: 2, Killed: 1}},
		{"killed long after", "A B/0 C/1", "A C", func(c *judge.Case) {
			c.Lives = killedAt(5)
			c.Shown["d"][2].At = second(6)
		}, counts{Shown: 3, Published: 2, Lost: 1}},
		{"killed long after, the broker away", "A B/0 C/1", "A C", func(c *judge.Case) {
			c.Lives = killedAt(5)
			c.Shown["d"][2].At = second(6)
			c.Away = []timeline.Span{span(0.5, 4)}
		}, counts{Shown: 3, Published: 2, Killed: 1}},
		{"asked again before it was killed", "A B B C/1", "A C", func(c *judge.Case) { c.Lives = killedAt(2.5) }, counts{Shown: 3, Published: 2, Lost: 1}},
		{"seen by the next life too", "A B B/1 C/1", "A C", func(c *judge.Case) { c.Lives = killedAt(1.5) }, counts{Shown: 3, Published: 2, Lost: 1}},
		{"stopped in the next moment", "A B C/1", "A C", func(c *judge.Case) {
			c.Lives = killedAt(1.5)
			c.Lives[0].Killed, c.Lives[0].Asked = false, true
		}, counts{Shown: 3, Published: 2, Lost: 1}},
		{"stopped while the broker was away", "A B C/1", "A C", func(c *judge.Case) {
			c.Lives = killedAt(1.5)
			c.Lives[0].Killed, c.Lives[0].Asked = false, true
			c.Away = []timeline.Span{span(0.9, 1.8)}
		}, counts{Shown: 3, Published: 2, Killed: 1}},
		{"stood still until it gave up", "A B C", "A C", func(c *judge.Case) {
			c.Lives[0].Pauses = []timeline.Span{span(1.1, 12)}
			c.Shown["d"][2].At = second(13)
		}, counts{Shown: 3, Published: 2, TimedOut: 1}},
		{"stood still, but asked long before", "A B C", "A C", func(c *judge.Case) {
			c.Lives[0].Pauses = []timeline.Span{span(1.5, 12)}
			c.Shown["d"][2].At = second(13)
		}, counts{Shown: 3, Published: 2, Lost: 1}},
		{"stood still, more unread than polls under way", "A B C D", "A D", func(c *judge.Case) {
			c.Lives[0].Pauses = []timeline.Span{span(1.1, 12)}
			c.Shown["d"][2].At = second(1.1)
			c.Shown["d"][3].At = second(13)
		}, counts{Shown: 4, Published: 2, TimedOut: 1, Lost: 1}},
		{"stood still for a moment", "A B C", "A C", func(c *judge.Case) { c.Lives[0].Pauses = []timeline.Span{span(1.1, 3)} }, counts{Shown: 3, Published: 2, Lost: 1}},

		{"killed, and shown to another one too", "A B B/2 C/2", "A C", func(c *judge.Case) { c.Lives = append(killedAt(1.5), beside()) }, counts{Shown: 3, Published: 2, Lost: 1}},
		{"killed, and asked about by another one before", "A/2 B C/2", "A C", func(c *judge.Case) { c.Lives = append(killedAt(1.5), beside()) }, counts{Shown: 3, Published: 2, Killed: 1}},
		{"the other one was killed", "A B/2 C", "A C", func(c *judge.Case) { c.Lives = append(killedAt(1.5), beside()) }, counts{Shown: 3, Published: 2, Lost: 1}},
		{"stood still, and another one asked", "A B C/1", "A C", func(c *judge.Case) {
			c.Lives = []timeline.Life{{Span: span(-1, 100), Asked: true, Pauses: []timeline.Span{span(1.5, 8)}}, beside()}
		}, counts{Shown: 3, Published: 2, Overtaken: 1}},
		{"stood still, and the other one asked after it woke", "A B C/1", "A C", func(c *judge.Case) {
			c.Lives = []timeline.Life{{Span: span(-1, 100), Asked: true, Pauses: []timeline.Span{span(1.5, 1.9)}}, beside()}
		}, counts{Shown: 3, Published: 2, Lost: 1}},
		{"the other one stood still", "A B C/1", "A C", func(c *judge.Case) {
			c.Lives = []timeline.Life{whole[0], {Span: span(-1, 100), Asked: true, Bridge: 1, Pauses: []timeline.Span{span(1.5, 8)}}}
		}, counts{Shown: 3, Published: 2, Lost: 1}},
		{"stood still long after, and another one asked", "A B C/1", "A C", func(c *judge.Case) {
			c.Lives = []timeline.Life{{Span: span(-1, 100), Asked: true, Pauses: []timeline.Span{span(4, 20)}}, beside()}
			c.Shown["d"][2].At = second(12)
		}, counts{Shown: 3, Published: 2, Lost: 1}},
		{"stood still, and published what was behind when it woke", "A B C/1", "A C B", func(c *judge.Case) {
			c.Lives = []timeline.Life{{Span: span(-1, 100), Asked: true, Pauses: []timeline.Span{span(1.5, 8)}}, beside()}
		}, counts{Shown: 3, Published: 3, Reordered: 1, Stale: 1}},
		{"asked again before it stood still", "A B B C/1", "A C", func(c *judge.Case) {
			c.Lives = []timeline.Life{{Span: span(-1, 100), Asked: true, Pauses: []timeline.Span{span(2.5, 8)}}, beside()}
		}, counts{Shown: 3, Published: 2, Lost: 1}},
		{"cut off, and another one asked", "A B C/1", "A C", func(c *judge.Case) {
			c.Lives = []timeline.Life{{Span: span(-1, 100), Asked: true, Cuts: []timeline.Span{span(0.5, 8)}}, beside()}
		}, counts{Shown: 3, Published: 2, Overtaken: 1}},
		{"cut off, and no other replica polled", "A B C", "A C", func(c *judge.Case) {
			c.Lives = []timeline.Life{{Span: span(-1, 100), Asked: true, Cuts: []timeline.Span{span(0.5, 8)}}}
		}, counts{Shown: 3, Published: 2, Lost: 1}},
		{"two stood still at once", "A B/0 C/1 D/2", "A D", func(c *judge.Case) {
			still := timeline.Life{Span: span(-1, 100), Asked: true, Pauses: []timeline.Span{span(1.1, 14)}}
			c.Lives = []timeline.Life{still, still, beside()}
			c.Shown["d"][2].At, c.Shown["d"][3].At = second(1.15), second(15)
		}, counts{Shown: 4, Published: 2, TimedOut: 2}},

		{"taken with an older copy", "A B C D", "A D", func(c *judge.Case) {
			c.Losses = []judge.Loss{{Since: second(0.5), At: second(2.5), Read: second(2.4)}}
		}, counts{Shown: 4, Published: 2, Taken: 2}},
		{"taken long after it was stored", "A B C D", "A D", func(c *judge.Case) {
			c.Shown["d"][3].At = second(20)
			c.Losses = []judge.Loss{{Since: second(0.5), At: second(19), Read: second(18.9), Held: events(c.Shown["d"], "A B C")}}
		}, counts{Shown: 4, Published: 2, Taken: 2}},
		{"lost before the broker lost the rest", "A B C D", "A D", func(c *judge.Case) {
			c.Shown["d"][3].At = second(20)
			c.Losses = []judge.Loss{{Since: second(0.5), At: second(19), Read: second(18.9), Held: events(c.Shown["d"], "A C")}}
		}, counts{Shown: 4, Published: 2, Taken: 1, Lost: 1}},
		{"repeated before the broker lost it", "A B C D", "A D", func(c *judge.Case) {
			c.Losses = []judge.Loss{{Since: second(0.5), At: second(2.5), Read: second(2.4), Held: events(c.Shown["d"], "A B C C")}}
		}, counts{Shown: 4, Published: 2, Taken: 2, Duplicated: 1}},
		{"stored after the copy, seen long before", "A B C D", "A D", func(c *judge.Case) {
			c.Shown["d"][3].At = second(20)
			c.Losses = []judge.Loss{{Since: second(10), At: second(19), Read: second(18.9), Held: events(c.Shown["d"], "A B C")}}
			c.Losses[0].Held[2].Stored, c.Losses[0].Held[3].Stored = second(9), second(11) // B and C
		}, counts{Shown: 4, Published: 2, Taken: 1, Lost: 1}},
		{"in the older copy", "A B C D", "B D", func(c *judge.Case) { c.Losses = []judge.Loss{{Since: second(5), At: second(6), Read: second(6)}} }, counts{Shown: 4, Published: 2, Lost: 2}},
		{"taken, and newer", "A B C", "A", func(c *judge.Case) {
			c.Losses = []judge.Loss{{Since: second(0.5), At: second(1.5), Read: second(1.5)}}
		}, counts{Shown: 3, Published: 1, Taken: 1, Lost: 1, Stale: 1}},
		{"taken, the newest", "A B", "A", func(c *judge.Case) {
			c.Losses = []judge.Loss{{Since: second(0.5), At: second(1.5), Read: second(1.5)}}
		}, counts{Shown: 2, Published: 1, Taken: 1, Stale: 1}},

		{"under way when the stream was deleted", "A B C D", "C D", func(c *judge.Case) {
			c.Losses = []judge.Loss{{All: true, At: second(0.5), Read: second(0.4)}}
			c.Events[1].Stored, c.Events[2].Stored = second(1.5), second(3)
		}, counts{Shown: 4, Published: 2, Taken: 1, Lost: 1}},
		{"long after the stream was deleted", "A B C D", "A D", func(c *judge.Case) {
			c.Shown["d"][2].At, c.Shown["d"][3].At = second(5), second(6)
			c.Losses = []judge.Loss{{All: true, At: second(-1), Read: second(-1.5)}}
			c.Events[1].Stored, c.Events[2].Stored = second(0.1), second(6)
		}, counts{Shown: 4, Published: 2, Lost: 2}},

		{"back-fill excuses nothing", "A B/0 C/1", "A C", func(c *judge.Case) {
			c.Lives = killedAt(1.5)
			c.History = map[string][]string{"d": {raw("A", 0), raw("B", 0), raw("C", 0)}}
		}, counts{Shown: 3, Published: 2, Lost: 1}},
		{"back-fill of what was never shown", "A C", "A B C", func(c *judge.Case) {
			c.History = map[string][]string{"d": {raw("before", 0), raw("A", 0), raw("B", 0), raw("C", 0), raw("after", 0)}}
			c.Events[2].Raw = raw("B", 0)
		}, counts{Shown: 3, Published: 3}},
		{"back-fill missing", "A C", "A C", func(c *judge.Case) {
			c.History = map[string][]string{"d": {raw("A", 0), raw("B", 0), raw("C", 0)}}
		}, counts{Shown: 3, Published: 2, Lost: 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			shown := answers(test.shown)
			c := judge.Case{
				Shown: map[string][]judge.Answer{"d": shown}, Events: events(shown, test.stream),
				Lives: append([]timeline.Life(nil), whole...), Grace: 2 * time.Second, Timeout: 10 * time.Second, Workers: 1,
			}
			if test.change != nil {
				test.change(&c)
			}
			got := judge.Outbound(c)
			test.want.Devices, test.want.Answers = 1, len(shown)
			if diff := cmp.Diff(got, judge.Report{Counts: test.want}, cmpopts.IgnoreFields(judge.Report{}, "Details")); diff != "" {
				t.Errorf("got - want +:\n%s\n%s", diff, strings.Join(got.Details, "\n"))
			}
		})
	}
}

func TestEdges(t *testing.T) {
	stream := func(alerts ...string) judge.Case {
		c := judge.Case{Shown: map[string][]judge.Answer{"d": {
			{At: second(0), Raw: raw("1", 0)}, {At: second(1), Raw: raw("2", 0, "X")}, {At: second(2), Raw: raw("3", 0, "X", "Y")}, {At: second(3), Raw: raw("4", 0, "Y")},
		}}, Events: events(nil, "")}
		for i, a := range c.Shown["d"] {
			c.Events = append(c.Events, judge.Event{ID: fmt.Sprint("l", i), Kind: "location", Device: "d", Raw: a.Raw})
		}
		for i, a := range alerts {
			f := strings.Fields(a)
			c.Events = append(c.Events, judge.Event{ID: fmt.Sprint("a", i), Kind: "alert", Device: "d", Alert: f[0], State: f[1], DateTime: f[2]})
		}
		return c
	}
	for _, test := range []struct {
		name        string
		alerts      []string
		lost, wrong int
	}{
		{"all there", []string{"X raised 2", "Y raised 3", "X cleared 4"}, 0, 0},
		{"none there", nil, 3, 0},
		{"not cleared", []string{"X raised 2", "Y raised 3"}, 1, 0},
		{"raised twice", []string{"X raised 2", "X raised 3", "Y raised 3", "X cleared 4"}, 0, 1},
		{"of no location", []string{"X raised 2", "Y raised 3", "X cleared 4", "Z raised 4"}, 0, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := judge.Outbound(stream(test.alerts...))
			if r.EdgesLost != test.lost || r.EdgesWrong != test.wrong || r.Edges != 3 {
				t.Errorf("got %d lost, %d wrong of %d, want %d, %d of 3", r.EdgesLost, r.EdgesWrong, r.Edges, test.lost, test.wrong)
			}
		})
	}
}

func TestInbound(t *testing.T) {
	lives := []timeline.Life{
		{Span: span(-1, 10), Killed: true},
		{Span: span(10, 99), Asked: true, Pauses: []timeline.Span{span(20, 32)}},
		{Span: span(-1, 80), Killed: true, Bridge: 1, Cuts: []timeline.Span{span(70, 79)}},
	}
	post := func(id string, at float64, life int) judge.Posting {
		return judge.Posting{ID: id, At: second(at), Life: life}
	}
	hidden := func(id string, at float64) judge.Posting {
		return judge.Posting{ID: id, At: second(at), Hidden: true}
	}
	type report = judge.InboundReport
	for _, test := range []struct {
		name   string
		posted []judge.Posting
		dead   string
		want   report
	}{
		{"all posted", []judge.Posting{post("1", 1, 0), post("2", 2, 0), post("3", 3, 0)}, "", report{Posted: 3}},
		{"one dead", []judge.Posting{post("1", 1, 0), post("3", 3, 0)}, "2", report{Posted: 2, Dead: 1}},
		{"one lost", []judge.Posting{post("1", 1, 0), post("3", 3, 0)}, "", report{Posted: 2, Lost: 1}},
		{"overtaken", []judge.Posting{post("1", 1, 0), post("3", 2, 0), post("2", 3, 0)}, "", report{Posted: 3, Reordered: 1}},
		{"again for no reason", []judge.Posting{post("1", 1, 0), post("1", 2, 0), post("2", 2, 0), post("3", 3, 0)}, "", report{Posted: 3, Repeated: 1}},
		{"again, the answer hidden", []judge.Posting{hidden("1", 1), post("1", 2, 0), post("2", 2, 0), post("3", 3, 0)}, "", report{Posted: 3, Repeated: 1, Allowed: 1}},
		{"again after a kill", []judge.Posting{post("1", 1, 0), post("2", 9.9, 0), post("2", 11, 1), post("3", 12, 1)}, "", report{Posted: 3, Repeated: 1, Allowed: 1}},
		{"again after standing still", []judge.Posting{post("1", 19.9, 1), post("1", 33, 1), post("2", 34, 1), post("3", 35, 1)}, "", report{Posted: 3, Repeated: 1, Allowed: 1}},
		{"again, out of turn", []judge.Posting{post("1", 1, 0), post("2", 9, 0), post("1", 11, 1), post("3", 12, 1)}, "", report{Posted: 3, Repeated: 1, Reordered: 1}},
		{"again, the first answered when it was dead", []judge.Posting{post("1", 1, 0), post("2", 10.1, 0), post("2", 11, 1), post("3", 12, 1)}, "", report{Posted: 3, Repeated: 1, Allowed: 1}},
		{"again long before the kill", []judge.Posting{post("1", 5, 0), post("1", 7, 1), post("2", 8, 1), post("3", 12, 1)}, "", report{Posted: 3, Repeated: 1}},
		{"again by another one while the first stood still", []judge.Posting{post("1", 19.9, 1), post("1", 26, 2), post("2", 34, 2), post("3", 35, 2)}, "", report{Posted: 3, Repeated: 1, Allowed: 1}},
		{"again by another one at once", []judge.Posting{post("1", 19.9, 1), post("1", 21, 2), post("2", 34, 2), post("3", 35, 2)}, "", report{Posted: 3, Repeated: 1}},
		{"again by another one, nothing the matter", []judge.Posting{post("1", 50, 1), post("1", 51, 2), post("2", 54, 2), post("3", 55, 2)}, "", report{Posted: 3, Repeated: 1}},
		{"again by another one, the other one killed later", []judge.Posting{post("1", 50, 2), post("1", 51, 1), post("2", 54, 1), post("3", 55, 1)}, "", report{Posted: 3, Repeated: 1}},
		{"again by another one while the first was cut off", []judge.Posting{post("1", 69.9, 2), post("1", 76, 1), post("2", 77, 1), post("3", 78, 1)}, "", report{Posted: 3, Repeated: 1, Allowed: 1}},
		{"on the way when it stood still", []judge.Posting{post("1", 26, 2), post("2", 27, 2), post("1", 32.1, 1), post("3", 35, 2)}, "", report{Posted: 3, Repeated: 1, Allowed: 1}},
		{"on the way for too long", []judge.Posting{post("1", 26, 2), post("2", 27, 2), post("1", 36, 1), post("3", 37, 2)}, "", report{Posted: 3, Repeated: 1, Reordered: 1}},
		{"again after the broker forgot the removal", []judge.Posting{post("1", 1, 0), post("2", 2, 0), post("1", 66, 2), post("2", 67, 2), post("3", 68, 2)}, "", report{Posted: 3, Repeated: 2, Allowed: 1, Restored: 1, Reordered: 0}},
		{"again by another one after the broker was away", []judge.Posting{post("1", 40.1, 1), post("1", 52, 2), post("2", 53, 2), post("3", 54, 2)}, "", report{Posted: 3, Repeated: 1, Allowed: 1}},
		{"more than were under way", []judge.Posting{post("1", 9.8, 0), post("2", 9.9, 0), post("1", 11, 2), post("2", 11.1, 2), post("3", 12, 2)}, "", report{Posted: 3, Repeated: 2, Allowed: 1, Reordered: 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := judge.InboundCase{
				Accepted: []judge.Accepted{{ID: "3", Device: "d", Seq: 3}, {ID: "1", Device: "d", Seq: 1}, {ID: "2", Device: "d", Seq: 2}},
				Posted:   map[string][]judge.Posting{"d": test.posted}, Dead: map[string]bool{}, Results: map[string]int{"1": 1, "2": 1, "3": 1},
				Lives: lives, Grace: 2 * time.Second, Timeout: 10 * time.Second, Workers: 1,
				Away: []timeline.Span{span(40, 46), span(64, 65)}, Removed: map[uint64][]time.Time{1: {second(3), second(90)}, 2: {second(66.5)}},
			}
			for i := range c.Accepted {
				c.Accepted[i].Seq = judge.Place(c.Accepted[i].Seq, 0)
			}
			if test.dead != "" {
				c.Dead[test.dead] = true
			}
			test.want.Accepted, test.want.Results = 3, 3
			got, details := judge.Inbound(c)
			if diff := cmp.Diff(got, test.want); diff != "" {
				t.Errorf("got - want +:\n%s\n%s", diff, strings.Join(details, "\n"))
			}
		})
	}
}

// requests returns requests of two bridges in turn.
func requests(seconds ...float64) []judge.Request {
	var list []judge.Request
	for i, s := range seconds {
		list = append(list, judge.Request{At: second(s), Bridge: i % 2})
	}
	return list
}

func TestAhead(t *testing.T) {
	for _, test := range []struct {
		name     string
		requests []judge.Request
		want     float64
	}{
		{"none", nil, 0},
		{"one", requests(5), 1},
		{"at the pace", requests(0, 1, 2, 3, 4), 1},
		{"behind it", requests(0, 2, 4, 6), 1},
		{"three at once", requests(0, 1, 5, 5, 5, 6), 3},
		{"twice as fast", requests(0, 3, 3.5, 4, 4.5, 9), 2.5},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := judge.Ahead(test.requests, 60); math.Abs(got-test.want) > 1e-9 {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestBusiest(t *testing.T) {
	for _, test := range []struct {
		name     string
		requests []judge.Request
		want     judge.Minute
	}{
		{"none", nil, judge.Minute{}},
		{"one", requests(5), judge.Minute{From: second(5), Requests: 1, ByBridge: map[int]int{0: 1}}},
		{"a minute apart", requests(0, 60), judge.Minute{From: second(0), Requests: 1, ByBridge: map[int]int{0: 1}}},
		{"less than a minute apart", requests(0, 59.999), judge.Minute{From: second(0), Requests: 2, ByBridge: map[int]int{0: 1, 1: 1}}},
		{"across two full minutes", requests(0, 50, 55, 65, 70, 109.9, 170), judge.Minute{From: second(50), Requests: 5, ByBridge: map[int]int{0: 2, 1: 3}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(judge.Busiest(test.requests), test.want); diff != "" {
				t.Errorf("got - want +:\n%s", diff)
			}
		})
	}
}
