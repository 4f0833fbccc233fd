package track

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"plaspy-bridge/publisher"
)

var (
	longSteps = flag.Int("track.steps", 0, "random steps of TestModelLong; 0 skips it")
	longSeed  = flag.Uint64("track.seed", 0, "seed of TestModelLong; 0 takes one from the clock")
	longDepth = flag.Int("track.depth", 0, "bound of TestModelBoundedLong; 0 skips it")
)

// op is one thing that happens.
type op struct {
	name string
	do   func(w *world)
}

func forReplica(name string, f func(w *world, i int)) []op {
	var list []op
	for i := range 2 {
		list = append(list, op{fmt.Sprint(name, i), func(w *world) { f(w, i) }})
	}
	return list
}

// turn has a replica poll and publish all of it.
func turn(w *world, i int) {
	w.sendAll(i)
	if w.replicas[i].asked == nil {
		w.ask(i)
	}
	w.compare(i)
	w.sendAll(i)
}

// sendAll has a replica publish all that it has planned.
func (w *world) sendAll(i int) {
	for n := 0; w.replicas[i].pub != nil; n++ {
		if n > 1000 {
			w.endless = true
			w.replicas[i].pub = nil
			return
		}
		w.send(i)
	}
}

// silentOrOther is an alert of the API that shares its name with the bridge's own
// while that is off.
func (w *world) silentOrOther() string {
	if w.rules.silent {
		return "Other"
	}
	return SilentAlert
}

// ops are all that can happen.
var ops = slices.Concat(
	forReplica("turn", turn), forReplica("ask", (*world).ask), forReplica("compare", (*world).compare),
	forReplica("send", (*world).send), forReplica("send", (*world).send), forReplica("crash", (*world).crash), forReplica("reread", (*world).reread),
	[]op{
		{"forward", func(w *world) { w.show(10 * time.Second) }},
		{"forward alert X", func(w *world) { w.show(10*time.Second, "X") }},
		{"same time", func(w *world) { w.show(0) }},
		{"same time alert X", func(w *world) { w.show(0, "X") }},
		{"backward alert silent", func(w *world) { w.show(-20*time.Second, w.silentOrOther()) }},
		{"back", (*world).back},
		{"ahead", func(w *world) { w.put(w.now.Add(24*time.Hour*365), "X", w.silentOrOther()) }},
		{"a little ahead", func(w *world) { w.put(w.now.Add(5 * time.Minute)) }},
		{"a little ahead alert X", func(w *world) { w.put(w.now.Add(5*time.Minute), "X") }},
		{"further ahead", func(w *world) { w.put(w.now.Add(20 * time.Minute)) }},
		{"too large", func(w *world) { w.show(10*time.Second, "Y"); w.shown[len(w.shown)-1].tooLarge = true }},
		{"alert too large", func(w *world) { w.show(10*time.Second, "Large", "X") }},
		{"missed alert", func(w *world) { w.missed("X") }},
		{"missed alert too large", func(w *world) { w.missed("Large") }},
		{"wait", func(w *world) { w.now = w.now.Add(silentAfter) }},
		{"age", (*world).age},
		{"lose 1", func(w *world) { w.lose(1) }},
		{"lose 3", func(w *world) { w.lose(3) }},
		{"lose all", func(w *world) { w.lose(len(w.msgs)) }},
		{"lost acknowledgement", func(w *world) { w.lostAck = true }},
	},
)

// The reference model: the events that the stream must hold after any history.

// check returns the first rule that the stream breaks, or "".
func (w *world) check() string {
	if w.endless {
		return "a turn does not end"
	}
	shown, raised := -1, map[string]bool{}
	var hash uint64
	fixes, history := map[uint64]bool{}, map[string]*event{}
	for i := range w.log {
		e := &w.log[i]
		switch {
		case e.subject == "L" && e.hash == hash:
			return fmt.Sprintf("location %d twice in a row", e.seq)
		case e.subject == "L" && !e.backfill && e.answer <= shown:
			return fmt.Sprintf("location %d shows answer %d after answer %d", e.seq, e.answer, shown)
		case e.subject == "L" && e.backfill && fixes[e.hash]:
			return fmt.Sprintf("back-filled location %d is in the stream already", e.seq)
		case e.subject == "L":
			hash, fixes[e.hash] = e.hash, true
			if !e.backfill {
				shown = e.answer
			}
			for _, a := range w.shown[e.answer].fix.Alerts {
				if w.owed(e) {
					break // a restart does not remember which alerts stayed raised meanwhile
				}
				history[fmt.Sprint(a, e.fixTime)] = e
			}
		case e.source == publisher.SourceHistory:
			k := fmt.Sprint(e.alert, e.fixTime)
			// A replica may publish a location after another one has planned the alert.
			if before := history[k]; before != nil && (before.subject != "L" || before.seq <= e.planned) {
				return fmt.Sprintf("alert %d of the history twice", e.seq)
			}
			history[k] = e
		default:
			k := e.source + " " + e.alert
			if raised[k] == (e.state == publisher.Raised) {
				return fmt.Sprintf("alert %d is %s twice in a row", e.seq, e.state)
			}
			raised[k] = !raised[k]
			if e.source == publisher.SourceBridge && !w.rules.silent {
				return "silent is off"
			}
		}
	}
	return ""
}

// owed reports whether the history from before a location on was left unread with it, or
// later.
func (w *world) owed(location *event) bool {
	return slices.ContainsFunc(w.log, func(e event) bool {
		since, err := time.Parse(time.RFC3339Nano, e.stored.Since)
		return err == nil && e.seq >= location.seq && !since.After(location.fixTime)
	})
}

// settle makes one replica start again and poll until nothing is left to publish, and
// returns the first rule that the stream breaks then, or "".
func (w *world) settle() string {
	if len(w.shown) == 0 {
		return ""
	}
	w.lostAck = false
	w.crash(1)
	w.crash(0)
	present := w.shown[len(w.shown)-1]
	for range 6 {
		turn(w, 0)
	}
	if w.replicas[0].reread || w.replicas[0].pub != nil {
		return "polls are of no use"
	}
	if broken := w.check(); broken != "" {
		return broken
	}
	t := w.replicas[0].track
	location := w.tail("L")
	if location == nil && w.bucket.seq < w.first {
		location = &w.bucket
	}
	if !present.tooLarge && (location.seq == 0 || location.hash != present.fix.Hash) {
		return "the last location is not the newest one"
	}
	want := slices.Sorted(slices.Values(present.fix.Alerts))
	if got := slices.Sorted(slices.Values(t.Raised)); !slices.Equal(got, want) && (!present.tooLarge || slices.Contains(want, "Large")) {
		return fmt.Sprintf("raised are %q, want %q", got, want)
	}
	for _, a := range []string{"X", "Y", "Other", "silent"} {
		if got, known := w.state(a, ""); known && got != slices.Contains(want, a) {
			return fmt.Sprintf("the stream has %s raised: %v", a, got)
		}
	}
	if broken := w.clone().settleHistory(); broken != "" {
		return broken
	}
	return w.settleSilent(t)
}

// settleHistory checks that the next fix brings the alerts of the history that are due.
// After a fix of the future, a gap may not be known.
func (w *world) settleHistory() string {
	ahead := func(e event) bool { return e.subject == "L" && e.fixTime.After(e.at.Add(futureSlack)) }
	if len(w.due) == 0 || slices.ContainsFunc(w.log, ahead) {
		return ""
	}
	if w.historyFails() {
		w.missed("Large")
	}
	w.show(10 * time.Second)
	turn(w, 0)
	turn(w, 0)
	for i := range w.due {
		row := &w.due[i]
		published := slices.ContainsFunc(w.log, func(e event) bool {
			return (e.source == publisher.SourceHistory && e.alert == row.Alert || e.subject == "L") && e.fixTime.Equal(row.Time)
		})
		if !published && w.now.Sub(row.Time) < gapLimit/2 {
			return fmt.Sprintf("alert %s of the history, of %s, is missing", row.Alert, row.Time.Format(time.TimeOnly))
		}
	}
	return w.check()
}

// settleSilent checks the bridge's own alert: it is raised for the last location
// or not at all, and the next fix clears it.
func (w *world) settleSilent(t Track) string {
	got, known := w.state(SilentAlert, publisher.SourceBridge)
	if known && got != t.Silent && w.silence.source == publisher.SourceBridge {
		return fmt.Sprintf("silent is raised in the stream: %v, in memory: %v", got, t.Silent)
	}
	if last := w.silence; got && last.source == publisher.SourceBridge && !w.shown[len(w.shown)-1].tooLarge && !last.fixTime.Equal(w.bucket.fixTime) {
		return "silent is raised for an older fix"
	}
	w.age()
	w.age()
	w.age()
	w.show(10 * time.Second)
	w.crash(0)
	for range 6 {
		turn(w, 0)
	}
	if got, _ := w.state(SilentAlert, publisher.SourceBridge); got && w.silence.source == publisher.SourceBridge {
		return "silent is not cleared by the next fix"
	}
	if broken := w.check(); broken != "" {
		return broken
	}
	if len(w.replicas[0].track.Raised) > 0 {
		return "alerts are still raised"
	}
	w.now = w.now.Add(silentAfter)
	turn(w, 0)
	w.age()
	w.age()
	if got, _ := w.state(SilentAlert, publisher.SourceBridge); got != w.rules.silent {
		return fmt.Sprintf("silent is raised: %v, the setting says %v", got, w.rules.silent)
	}
	w.crash(0)
	turn(w, 0)
	return w.check()
}

// state is the last state of an alert that the stream took.
func (w *world) state(alert, source string) (raised, known bool) {
	for i := range w.log {
		if e := &w.log[i]; e.alert == alert && e.source == source {
			raised, known = e.state == publisher.Raised, true
		}
	}
	return raised, known
}

// run performs a history and returns the first difference from the model.
func run(r rules, history []int) string {
	w := newWorld(r)
	for _, i := range history {
		w.now = w.now.Add(time.Second)
		ops[i].do(w)
		if broken := w.check(); broken != "" {
			return broken
		}
	}
	return w.settle()
}

var allRules = []rules{{}, {backfill: true}, {history: true}, {silent: true}, {backfill: true, history: true, silent: true}, {ignoreAlerts: true}, {silent: true, ignoreAlerts: true}}

func names(history []int) string {
	var list []string
	for _, i := range history {
		list = append(list, ops[i].name)
	}
	return strings.Join(list, ", ")
}

// TestModel runs random histories.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rapid.SampledFrom(allRules).Draw(t, "rules")
		history := rapid.SliceOfN(rapid.IntRange(0, len(ops)-1), 1, 60).Draw(t, "history")
		if broken := run(r, history); broken != "" {
			t.Fatalf("%s\nafter %s", broken, names(history))
		}
	})
}

// TestModelLong runs millions of random steps. Every second history has a choice of steps
// of its own, so that more rare ones meet:
// go test ./bridge/outbound/track -run TestModelLong -track.steps 10000000 -v.
func TestModelLong(t *testing.T) {
	if *longSteps == 0 {
		t.Skip("needs -track.steps")
	}
	start, steps, histories := time.Now(), 0, 0
	seed := *longSeed
	if seed == 0 {
		seed = uint64(start.UnixNano())
	}
	rnd := rand.New(rand.NewPCG(seed, 0))
	for steps < *longSteps {
		choice := rnd.Uint64() | 3 // the turns, and about half of the other steps
		if histories%2 == 0 {
			choice = math.MaxUint64
		}
		history := make([]int, 0, 80)
		for n := 1 + rnd.IntN(80); len(history) < n; {
			if i := rnd.IntN(len(ops)); choice>>i&1 == 1 {
				history = append(history, i)
			}
		}
		r := allRules[rnd.IntN(len(allRules))]
		if broken := run(r, history); broken != "" {
			t.Fatalf("seed %d: %s\n%+v\nafter %s", seed, broken, r, names(history))
		}
		steps, histories = steps+len(history), histories+1
	}
	t.Logf("seed %d: %d steps in %d histories without a violation, %v", seed, steps, histories, time.Since(start).Round(time.Second))
}

// TestModelBounded runs all histories of a bounded length, both replicas
// included.
func TestModelBounded(t *testing.T) { bounded(t, 2) }

// TestModelBoundedLong runs longer ones:
// go test ./bridge/outbound/track -run TestModelBoundedLong -track.depth 4 -v.
func TestModelBoundedLong(t *testing.T) {
	if *longDepth == 0 {
		t.Skip("needs -track.depth")
	}
	bounded(t, *longDepth)
}

func bounded(t *testing.T, depth int) {
	t.Helper()
	start, histories := time.Now(), 0
	var visit func(w *world, history []int)
	visit = func(w *world, history []int) {
		for i := range ops {
			if slices.ContainsFunc(ops[:i], func(o op) bool { return o.name == ops[i].name }) {
				continue // it is there twice to be more likely in random histories
			}
			next := w.clone()
			next.now = next.now.Add(time.Second)
			ops[i].do(next)
			so := append(slices.Clip(history), i)
			broken := next.check()
			if broken == "" {
				broken = next.clone().settle()
			}
			histories++
			if broken != "" {
				t.Fatalf("%s\n%+v\nafter %s", broken, w.rules, names(so))
			}
			if len(so) < depth {
				visit(next, so)
			}
		}
	}
	for _, r := range allRules {
		w := newWorld(r)
		w.show(0)
		turn(w, 0)
		visit(w, nil)
	}
	t.Logf("%d histories of up to %d steps, %v", histories, depth, time.Since(start).Round(time.Millisecond))
}
