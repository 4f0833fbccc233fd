package schedule_test

import (
	"fmt"
	"os"
	"plaspy-bridge/bridge/schedule"
	"sort"
	"testing"
	"time"
)

func TestClass(t *testing.T) {
	ratio := 0.45
	envf("RATIO", &ratio)
	if os.Getenv("CLASS") == "" {
		t.Skip()
	}
	envf("RHO", &schedule.Rho)
	envf("PHI", &schedule.Phi)
	envf("DITHER", &schedule.Dither)
	envf("X1", &schedule.X1)
	envf("X2", &schedule.X2)
	envf("X3", &schedule.X3)
	envf("X4", &schedule.X4)
	r := setting(1, 1000, ratio)
	r.horizon = 2 * time.Hour
	p := schedule.NewAdaptive(schedule.AdaptiveOptions{Interval: time.Minute, TripStartWeight: 1})
	r.run(p)
	cnt := map[string]int{}
	for _, d := range r.trackers {
		j := sort.Search(len(d.fixes), func(i int) bool { return d.fixes[i].visible > 2*time.Hour })
		if j == 0 || j >= len(d.fixes) {
			continue
		}
		moving := d.fixes[j].kind != "park" && d.fixes[j].kind != "begin"
		gap := (d.fixes[j].stamp - d.fixes[j-1].stamp).Seconds()
		k, per := p.Class(d.id)
		key := fmt.Sprint(moving, " ", k)
		if moving && k == "grid" {
			ra := per / gap
			switch {
			case ra < .45:
				key += " <.45"
			case ra < .9:
				key += " <.9"
			case ra < 1.1:
				key += " ok"
			case ra < 2.5:
				key += " ~2"
			default:
				key += " more"
			}
		}
		cnt[key]++
		if moving && k == "misfit" {
			t.Log(d.id, d.fixes[j].kind, per, p.Gaps(d.id))
		}
	}
	t.Log(cnt)
}
