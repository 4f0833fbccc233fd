package ops_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"plaspy-bridge/bridge/ops"
)

func TestReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now().UTC()
		if ready, _ := ops.NewHealth().Ready(); ready {
			t.Error("ready without a part")
		}
		h := ops.NewHealth("token", "streams")
		threeOfThem := ops.State{OK: true, Reason: "three of them"}
		report := func(name string, s ops.State) func() { return func() { h.Report(name, s) } }
		steps := []struct {
			name  string
			do    func()
			ready bool
			want  map[string]ops.PartStatus
		}{
			{"starting", func() {}, false, map[string]ops.PartStatus{
				"token":   {State: ops.Down("starting"), Since: start},
				"streams": {State: ops.Down("starting"), Since: start},
			}},
			{"one ok", report("token", ops.Up()), false, map[string]ops.PartStatus{
				"token":   {State: ops.Up(), Since: start.Add(time.Second)},
				"streams": {State: ops.Down("starting"), Since: start},
			}},
			{"all ok", report("streams", threeOfThem), true, map[string]ops.PartStatus{
				"token":   {State: ops.Up(), Since: start.Add(time.Second)},
				"streams": {State: threeOfThem, Since: start.Add(2 * time.Second)},
			}},
			{"ok again changes nothing", report("token", ops.Up()), true, map[string]ops.PartStatus{
				"token":   {State: ops.Up(), Since: start.Add(time.Second)},
				"streams": {State: threeOfThem, Since: start.Add(2 * time.Second)},
			}},
			{"degraded is ready", report("token", ops.Degraded("renewal fails")), true, map[string]ops.PartStatus{
				"token":   {State: ops.Degraded("renewal fails"), Since: start.Add(4 * time.Second)},
				"streams": {State: threeOfThem, Since: start.Add(2 * time.Second)},
			}},
			{"failed is not", report("token", ops.Down("key refused")), false, map[string]ops.PartStatus{
				"token":   {State: ops.Down("key refused"), Since: start.Add(5 * time.Second)},
				"streams": {State: threeOfThem, Since: start.Add(2 * time.Second)},
			}},
			{"another reason, the same failure", report("token", ops.Down("key still refused")), false, map[string]ops.PartStatus{
				"token":   {State: ops.Down("key still refused"), Since: start.Add(5 * time.Second)},
				"streams": {State: threeOfThem, Since: start.Add(2 * time.Second)},
			}},
		}
		for _, step := range steps {
			step.do()
			ready, parts := h.Ready()
			if diff := cmp.Diff(parts, step.want); ready != step.ready || diff != "" {
				t.Errorf("%s: ready %t, want %t; (-got +want):\n%s", step.name, ready, step.ready, diff)
			}
			time.Sleep(time.Second)
		}
		if _, parts := h.Ready(); parts["token"].Reason != "key still refused" {
			t.Errorf("token after Part: %+v", parts["token"])
		}
		_, parts := h.Ready()
		parts["streams"] = ops.PartStatus{}
		if _, again := h.Ready(); !again["streams"].OK {
			t.Error("the returned map is shared")
		}
	})
}

func TestLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := ops.NewHealth()
		if live, _ := h.Live(); !live {
			t.Error("dead without a heartbeat")
		}
		polls := h.Progress("polls", 10*time.Second)
		acks := h.Progress("acks", 30*time.Second)
		steps := []struct {
			name       string
			wait       time.Duration
			do         func()
			live       bool
			polls, ack ops.HeartStatus
		}{
			{"the first beat is the registration", 10 * time.Second, func() {}, true,
				ops.HeartStatus{OK: true, Age: 10, MaxAge: 10}, ops.HeartStatus{OK: true, Age: 10, MaxAge: 30}},
			{"one overdue", time.Second, func() {}, false,
				ops.HeartStatus{Age: 11, MaxAge: 10}, ops.HeartStatus{OK: true, Age: 11, MaxAge: 30}},
			{"beats again", 0, polls.Beat, true,
				ops.HeartStatus{OK: true, MaxAge: 10}, ops.HeartStatus{OK: true, Age: 11, MaxAge: 30}},
			{"idle owes no beat", 15 * time.Second, func() { polls.Wait("nothing to do") }, true,
				ops.HeartStatus{OK: true, MaxAge: 10, Idle: true, Waits: "nothing to do"}, ops.HeartStatus{OK: true, Age: 26, MaxAge: 30}},
			{"the other overdue", 5 * time.Second, func() {}, false,
				ops.HeartStatus{OK: true, MaxAge: 10, Idle: true, Waits: "nothing to do"}, ops.HeartStatus{Age: 31, MaxAge: 30}},
			{"more patience", 0, func() { h.Progress("acks", time.Minute) }, true,
				ops.HeartStatus{OK: true, MaxAge: 10, Idle: true, Waits: "nothing to do"}, ops.HeartStatus{OK: true, Age: 31, MaxAge: 60}},
			{"a beat ends the idleness", 0, func() { polls.Beat(); acks.Beat() }, true,
				ops.HeartStatus{OK: true, MaxAge: 10}, ops.HeartStatus{OK: true, MaxAge: 60}},
		}
		for _, step := range steps {
			time.Sleep(step.wait)
			step.do()
			live, hearts := h.Live()
			want := map[string]ops.HeartStatus{"polls": step.polls, "acks": step.ack}
			if diff := cmp.Diff(hearts, want); live != step.live || diff != "" {
				t.Errorf("%s: live %t, want %t; (-got +want):\n%s", step.name, live, step.live, diff)
			}
		}
	})
}

// TestHealthTogether runs concurrent changes and reads for the race detector.
func TestHealthTogether(t *testing.T) {
	h := ops.NewHealth()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			heart := h.Progress("heart", time.Minute)
			for range 200 {
				h.Report("part", ops.Up())
				h.Report("part", ops.Down("reason"))
				heart.Beat()
				h.Ready()
				h.Live()
			}
		})
	}
	all.Wait()
	if live, _ := h.Live(); !live {
		t.Error("dead after beats")
	}
}

func BenchmarkBeat(b *testing.B) {
	heart := ops.NewHealth().Progress("polls", time.Minute)
	for b.Loop() {
		heart.Beat()
	}
}

func TestHeartThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := ops.NewHealth()
		heart := h.Progress("polls", 10*time.Second)
		for _, step := range []struct {
			name string
			do   func()
			want ops.HeartStatus
		}{
			{"waits", func() { heart.Wait("the API is down") }, ops.HeartStatus{OK: true, MaxAge: 10, Idle: true, Waits: "the API is down"}},
			{"for something else", func() { heart.Wait("there is no token") }, ops.HeartStatus{OK: true, MaxAge: 10, Idle: true, Waits: "there is no token"}},
			{"beats", heart.Beat, ops.HeartStatus{Age: 60, MaxAge: 10}},
		} {
			step.do()
			time.Sleep(time.Minute)
			if _, hearts := h.Live(); hearts["polls"] != step.want {
				t.Errorf("%s: got %+v, want %+v", step.name, hearts["polls"], step.want)
			}
		}
	})
}
