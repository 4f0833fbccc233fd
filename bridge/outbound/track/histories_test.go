package track

import (
	"strings"
	"testing"
)

// histories are those that random ones hardly ever reach.
var histories = []struct {
	name  string
	rules rules
	steps string
}{
	{
		"silent is cleared once after a crash", rules{silent: true},
		"forward, turn0, wait, turn0, forward, ask0, compare0, send0, crash0, forward, turn0",
	},
	{
		"silent ends with the fix that it is about", rules{silent: true},
		"forward, turn0, wait, turn0, forward, ask0, compare0, send0, crash0, turn0",
	},
	{
		"an alert that was polled is in the history too", rules{history: true},
		"forward alert X, turn0, forward, turn0, forward alert X, turn0, forward, turn0",
	},
	{
		"a replica that was held up publishes a change early", rules{},
		"forward alert X, turn1, too large, turn0, a little ahead, turn1",
	},
	{
		"alerts that changed without a location", rules{},
		"too large, ask1, forward, turn0, turn1",
	},
	{
		"a gap begins after the fixes of the future", rules{backfill: true},
		"forward, turn0, a little ahead, turn0, a little ahead, turn0",
	},
	{
		"a gap ends before the fixes of the future", rules{backfill: true},
		"forward, turn0, a little ahead, turn0, further ahead, turn0, a little ahead, turn0",
	},
	{
		"a restart does not show the alerts of an earlier fix of the same time", rules{history: true},
		"forward alert X, turn0, forward alert X, turn0, same time, turn0, missed alert, crash0, forward, turn0",
	},
	{
		"an alert ends without a location, then a fix of the same time follows", rules{backfill: true, history: true},
		"same time alert X, turn1, forward alert X, too large, turn1, alert too large, backward alert silent, turn0, a little ahead",
	},
	{
		"a row of a replica that was held up hides no missing change", rules{history: true},
		"same time, turn0, missed alert, forward, ask1, compare1, forward alert X, ask0, compare0, send0, crash0, send1",
	},
	{
		"another replica has read the history that this one could not read", rules{history: true},
		"missed alert too large, a little ahead alert X, turn0, a little ahead alert X, turn0, a little ahead alert X, turn0, forward, turn0, missed alert too large, forward, ask1, compare1, missed alert too large, turn0, send1, further ahead, turn1",
	},
	{
		"another replica has published the history since the last location aged out", rules{history: true},
		"same time alert X, turn1, age, missed alert, too large, too large, turn0, turn1, turn1",
	},
	{
		"a row of a replica that was held up", rules{backfill: true, history: true, silent: true},
		"forward alert X, forward alert X, turn0, too large, missed alert, ask0, same time alert X, missed alert, compare0, back, back, turn1, send0",
	},
}

func TestModelHistories(t *testing.T) {
	byName := map[string]int{}
	for i := range ops {
		byName[ops[i].name] = i
	}
	for _, h := range histories {
		t.Run(h.name, func(t *testing.T) {
			var history []int
			for name := range strings.SplitSeq(h.steps, ", ") {
				i, ok := byName[name]
				if !ok {
					t.Fatalf("no step is named %q", name)
				}
				history = append(history, i)
			}
			if broken := run(h.rules, history); broken != "" {
				t.Error(broken)
			}
		})
	}
}
