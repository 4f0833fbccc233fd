package schedule_test

import (
	"os"
	"plaspy-bridge/bridge/schedule"
	"testing"
	"time"
)

func TestTrace(t *testing.T) {
	want := os.Getenv("KIND")
	if want == "" {
		t.Skip()
	}
	r := setting(1, 1000, 0.45)
	dev := -1
	for i, d := range r.trackers {
		n := 0
		for _, f := range d.fixes {
			if f.kind == want && f.visible > time.Hour {
				n++
			}
		}
		if n > 40 {
			dev = i
			break
		}
	}
	p := schedule.NewAdaptive(schedule.AdaptiveOptions{Interval: time.Minute, TripStartWeight: 1})
	log := r.run(p)
	d := r.trackers[dev]
	t.Log(d.id)
	j := 0
	for _, q := range log {
		if q.device != dev || q.at < time.Hour {
			continue
		}
		for j < len(d.fixes) && d.fixes[j].visible <= q.looked {
			if d.fixes[j].visible > time.Hour {
				t.Logf("    fix %s stamp %.1f vis %.1f sp %.0f in %d delay %.1f", d.fixes[j].kind, d.fixes[j].stamp.Seconds(), d.fixes[j].visible.Seconds(), d.fixes[j].speed, d.fixes[j].input, (q.answered - d.fixes[j].visible).Seconds())
			}
			j++
		}
		t.Logf("poll %.1f  after: %s", q.answered.Seconds(), q.note)
	}
}
