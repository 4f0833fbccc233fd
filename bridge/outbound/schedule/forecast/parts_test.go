package forecast

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestRhythm(t *testing.T) {
	for _, tc := range []struct {
		name  string
		gap   func(r *rand.Rand) (gap float64, most uint8)
		want  float64 // 0: no rhythm
		after int     // gaps
	}{
		{"every fix seen", func(*rand.Rand) (float64, uint8) { return 30, 1 }, 30, 3},
		{"some missed", func(r *rand.Rand) (float64, uint8) { return 15 * float64(2+r.IntN(5)), 255 }, 15, 30},
		{"timer wavers", func(r *rand.Rand) (float64, uint8) { return math.Round(60 + r.NormFloat64()), 1 }, 60, 10},
		{"a fifth are extra", func(r *rand.Rand) (float64, uint8) {
			if r.IntN(5) == 0 {
				return math.Round(100 * r.Float64()), 1
			}
			return 120, 1
		}, 120, 30},
		{"at random", func(r *rand.Rand) (float64, uint8) { return math.Round(60 * r.ExpFloat64()), 1 }, 0, 60},
	} {
		t.Run(tc.name, func(t *testing.T) {
			right := 0
			for seed := range uint64(50) {
				src := rand.New(rand.NewPCG(seed, 3))
				var r rhythm
				for range tc.after {
					gap, most := tc.gap(src)
					r.add(gap, most, nil)
				}
				if tc.want == 0 && !r.known() || r.known() && math.Abs(float64(r.period)-tc.want) < 0.05*tc.want {
					right++
				}
			}
			if right < 40 {
				t.Errorf("found the period of %v s (0: that there is none) in %d of 50, want 40", tc.want, right)
			}
		})
	}
}

func TestLagFindsTheMoment(t *testing.T) {
	for _, tc := range []struct {
		name  string
		skew  float64
		width float64 // of the upload times, a factor
		late  float64 // seconds after a fix appears that it may be seen
	}{
		{"right clock", 0, 1, 1},
		{"hours off", -5 * 3600, 1, 1},
		{"seconds ahead", -40, 1, 2.5}, // found out late: the clock looks right at first
		{"shaky network", 0, 5, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(4, 4))
			var l lag
			late, polls := 0., 0
			const fixes, learning = 500, 200
			for n := range fixes {
				took := tc.skew + 1 + tc.width*r.Float64()
				low, high := took-60*r.Float64(), took+60*r.Float64() // at first: polled at random
				if l.known() {
					low = math.Inf(-1)
					for high = l.moment(0.5, low); high < took; high = l.moment(0.5, low) {
						low = high
						if n >= learning {
							polls++
						}
						if !l.pending(low) {
							high = took + 5
							break
						}
					}
				}
				if n >= learning {
					late += (high - took) / (fixes - learning)
					polls++
				}
				l.saw(low, high, 3)
			}
			if got, most := late, tc.late; got > most {
				t.Errorf("seen after %.2f s on average, want %.2f s at most", got, most)
			}
			if got, most := float64(polls)/(fixes-learning), 1.5+tc.width/4; got > most {
				t.Errorf("polls per fix: got %.2f, want %.2f at most", got, most)
			}
		})
	}
}

func TestLagStaysWhatItIs(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	var l lag
	for range 20000 {
		took := 1e3 * (r.Float64() - 0.5) * float64(1+r.IntN(100))
		l.saw(took-r.ExpFloat64()*100, took+r.ExpFloat64()*100, 3)
		sum := float32(0)
		for i, w := range l.weights() {
			if !(w >= 0) {
				t.Fatalf("weight %d: got %v, want at least 0", i, w)
			}
			sum += w
		}
		if math.Abs(float64(sum)-1) > 1e-3 || !(l.width > 0) || math.IsNaN(l.middle()) {
			t.Fatalf("got weights of %v, width %v, middle %v; want 1, more than 0, a number", sum, l.width, l.middle())
		}
	}
}

func TestOutlookWait(t *testing.T) {
	const longest = 1000
	for _, tc := range []struct {
		name  string
		o     Outlook
		price float64
		want  float64
		why   Cause
		k     float64
	}{
		{"each fix", Outlook{fixes: series{first: 30, each: 30, worth: 1}}, 20, 30, Due, 1},
		{"every third", Outlook{fixes: series{first: 30, each: 30, worth: 1}}, 100, 90, Due, 3},
		{"parked", Outlook{trip: 1. / 3600 / 30, quiet: true}, 10, math.Cbrt(3 * 10 * 3600 * 30), Trip, 0},
		{"no rhythm", Outlook{event: 0.02}, 4, 20, Rate, 0},
		{"heartbeat", Outlook{beats: series{first: 400, each: 1800, worth: 0.9}}, 50, 400, Due, 0},
		{"nothing to hope for", Outlook{}, 1, longest, Longest, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, why, k := tc.o.Wait(tc.price, longest)
			if math.Abs(got-tc.want) > 1e-6*tc.want || why != tc.why || k != tc.k {
				t.Errorf("got %v, %v, %v; want %v, %v, %v", got, why, k, tc.want, tc.why, tc.k)
			}
		})
	}
}

func TestSmoothSolves(t *testing.T) {
	for _, event := range []float64{0, 1e-6, 1e-3, 1} {
		for _, trip := range []float64{0, 1e-9, 1e-5, 1e-2} {
			for _, worth := range []float64{0.01, 1, 300} {
				if event+trip == 0 {
					continue
				}
				o := Outlook{event: event, trip: trip}
				s := o.smooth(worth)
				if got := event*s*s/2 + trip*s*s*s/3; math.Abs(got-worth) > 0.01*worth {
					t.Errorf("event %v, trip %v: got %v worth %v, want %v", event, trip, s, got, worth)
				}
			}
		}
	}
}

func TestHazardLearns(t *testing.T) {
	h := newHazard()
	for range 500 {
		h.parked(0, 600)
		h.began(599)
	}
	if got := h.at(500); got < 1./200 || got > 1./50 {
		t.Errorf("hazard of devices that leave after 600 s, at 500 s: got 1/%.0f, want about 1/90", 1/got)
	}
	if got := h.at(90); got > 1./5000 {
		t.Errorf("and at 90 s: got 1/%.0f, want less than 1/5000", 1/got)
	}
}

// TestRoadWithoutSigns polls a device without speed and inputs every five minutes. It parks for four hours with a
// heartbeat every 20 minutes, and then drives for an hour with a fix every 10 seconds.
func TestRoadWithoutSigns(t *testing.T) {
	f, d := NewFleet(), NewDevice()
	const every, begin, end = 297., 4 * 3600., 5 * 3600.
	parkedOnTheRoad, drivesInTheYard, polls := 0, 0, 0
	for at := 0.; at < end; at += every {
		stamp := math.Floor((at-3)/1200) * 1200
		if at > begin+13 {
			stamp = begin + math.Floor((at-3-begin)/10)*10
		}
		t := FromSeconds(at)
		f.Observe(&d, t, Observation{Asked: t - 1e8, Fix: true, Stamp: FromSeconds(stamp), Speed: math.NaN(), Input: -1})
		switch {
		case at > begin+4*every && d.Parked():
			parkedOnTheRoad++
		case at > 2*3600 && at < begin:
			polls++
			if !d.Parked() {
				drivesInTheYard++
			}
		}
	}
	if parkedOnTheRoad > 0 {
		t.Errorf("it counts as parked after %d polls on the road", parkedOnTheRoad)
	}
	if drivesInTheYard > polls/5 {
		t.Errorf("it counts as on the road after %d of %d polls in the yard", drivesInTheYard, polls)
	}
}
