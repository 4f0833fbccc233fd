package lane

import (
	"testing"

	"plaspy-bridge/bridge/mutation"
)

// TestMutations puts each fault into a copy of the source and wants the model to
// notice it.
func TestMutations(t *testing.T) {
	mutation.Test(t, faults, "-timeout", "2m", "-rapid.nofailfile", "-rapid.shrinktime=1ms", "-run", "TestModel|TestSeeds|TestExhaustive|TestHealthy|TestMemory|TestDelay|TestProbes|TestStop")
}

var faults = []mutation.Fault{
	{"a delivered message is taken again", "lanes.go", "if m.Seq <= l.pos {", "if false {"},
	{"what follows a message in the stream is held", "lanes.go", "case n.last != 0:\n", "case false:\n"},
	{"a lane has no share of the memory", "lanes.go", "len(n.rest) < share && ", "share > 0 && "},
	{"the messages in memory are not bounded", "lanes.go", "&& l.memory.messages < l.limits.Messages", ""},
	{"bytes are not counted", "lanes.go", "&& l.memory.bytes+m.Size <= l.limits.Bytes", ""},
	{"a kept verdict is not recalled", "lanes.go", "m.verdict, m.again = l.outcomes.recall(m)", "_, _ = l.outcomes.recall(m)"},
	{"spill goes on behind what it dropped", "lanes.go", "n.next = n.rest[0].Seq", "n.next = n.rest[0].Seq + 1"},
	{"a read takes other lanes' messages", "lanes.go", " || m.Lane != n.key", ""},
	{"a read that ran out of room skips messages", "lanes.go", "through = m.Seq - 1\n			break", "break"},
	{"a read that failed counts as one that found nothing", "lanes.go", "if err != nil {\n		l.wait(n, now, l.limits.Pause, Other)\n		return\n	}\n	if n.head", "if n.head"},
	{"a message that is gone is waited for", "lanes.go", "		l.leave(n)\n		return\n	}\n	n.head.Content", "		return\n	}\n	n.head.Content"},
	{"places have no limit", "next.go", "for l.open < l.limits.Workers {", "for {"},
	{"a stop posts on", "next.go", "	if l.stopping {\n		return Action{}, false\n	}\n", ""},
	{"the age does not matter", "next.go", "case now.Sub(m.At) >= l.limits.MaxAge:", "case false:"},
	{"posts go out while the API is down", "next.go", "case l.down && now.Before(l.gate):", "case false:"},
	{"a probe is not followed by a pause", "next.go", "l.gate = now.Add(time.Second)", "_ = now"},
	{"parked lanes are forgotten", "next.go", "	for n := l.parks.next(&l.timers, len(l.parks)); n != nil; n = l.parks.next(&l.timers, len(l.parks)) {\n		l.enqueue(n, false)\n	}\n	for", "	for"},
	{"a probe needs no place", "next.go", "l.stopping || l.open >= l.limits.Workers:", "l.stopping:"},
	{"probes of lanes in trouble may take all places", "next.go", "case l.troubled >= l.limits.troubled():", "case false:"},
	{"dead letters may take all workers", "next.go", "l.stopping || l.recording < max(1, l.limits.Workers/2)", "true"},
	{"a dead letter is recorded without its content", "next.go", "if !m.verdict.Posted && m.Content == nil {", "if false {"},
	{"lanes in trouble may take all places", "next.go", "l.troubled < share &&", "share > 0 &&"},
	{"lanes in trouble have no turn", "next.go", "(l.fresh.len() == 0 || l.healthyPosts >= 16)", "l.healthyPosts >= 1<<30"},
	{"a posted message gives its place up", "answer.go", "		if a.Verdict.Posted {\n			l.memory.drop(m)", "		if a.Verdict.Posted {\n			l.release(n)\n			l.memory.drop(m)"},
	{"a refused message keeps its place", "answer.go", "		} else {\n			l.release(n)\n		}", "		}"},
	{"the API's wish is not obeyed", "answer.go", "return max(d, a.AtLeast)", "return d"},
	{"the backoff does not wait", "answer.go", "d := m.retry.delay(a, l.limits.Initial, l.limits.Max)", "d := m.retry.delay(a, l.limits.Initial, l.limits.Max) / 8"},
	{"a post that was withheld is forgotten", "answer.go", "	case a.Withheld:\n		l.wait(n, now, l.limits.Pause/4, Other)", "	case a.Withheld:"},
	{"a batch ends after its first element", "answer.go", "		m.retry = retry{}\n		l.enqueue(n, false)\n", "		m.retry = retry{}\n"},
	{"an element that was posted counts as a failed try", "answer.go", "		m.retry = retry{}\n", ""},
	{"a verdict that was not recorded is dropped", "answer.go", "	if err != nil {\n		l.spill(n)", "	if err != nil {\n		m.verdict = nil\n		l.spill(n)"},
	{"a lane goes on before its message is recorded", "answer.go", "	if err != nil {\n		l.spill(n)", "	if false {\n		l.spill(n)"},
	{"a stop ends while messages are not recorded", "answer.go", "n.state == busy || n.sent()", "n.state == busy"},
	{"a stop forgets an outcome behind a message that came back", "answer.go", "slices.ContainsFunc(n.rest, behind)", "slices.ContainsFunc(n.rest[:0], behind)"},
	{"a reset forgets verdicts", "answer.go", "			l.outcomes.restore(n.head)\n", "			_ = n\n"},
	{"verdicts are not remembered once recorded", "answer.go", "	l.outcomes.recorded(m)\n", ""},
	{"verdicts that can be made again are kept", "outcomes.go", "m.verdict != nil && m.verdict.Sent && !m.again", "m.verdict != nil"},
	{"a verdict is forgotten once its message was passed", "outcomes.go", "o.kept[m.Seq] = k\n	}", "delete(o.kept, m.Seq)\n	}"},
}
