package schedule

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"
)

func TestQueueKeepsOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var q queue
	want := make(map[int32]tick)
	for range 5000 {
		slot := int32(r.IntN(200))
		if r.IntN(4) == 0 {
			q.drop(slot)
			delete(want, slot)
			continue
		}
		due := tick(r.IntN(1000))
		q.set(slot, due)
		want[slot] = due
		if got, ok := q.due(slot); !ok || got != due {
			t.Fatalf("due of %d: got %d, %v, want %d", slot, got, ok, due)
		}
	}
	if got := q.len(); got != len(want) {
		t.Fatalf("len: got %d, want %d", got, len(want))
	}
	var all []tick
	for _, due := range want {
		all = append(all, due)
	}
	slices.Sort(all)
	for _, due := range all {
		slot, got := q.top()
		if got != due || want[slot] != due {
			t.Fatalf("top: got slot %d due %d, want %d", slot, got, due)
		}
		q.drop(slot)
	}
}

func TestQueueIsFairAmongEquals(t *testing.T) {
	var q queue
	for slot := range int32(50) {
		q.set(slot, 7)
	}
	for want := range int32(50) {
		got, _ := q.top()
		if got != want {
			t.Fatalf("top: got %d, want %d", got, want)
		}
		q.drop(got)
	}
}

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
					r.add(tc.gap(src))
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
		width float64 // of what the upload takes
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
		for i, w := range l.weight {
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
		o     outlook
		price float64
		want  float64
		why   Reason
		k     float64
	}{
		{"each fix", outlook{first: 30, each: 30, worth: 1}, 20, 30, ReasonDue, 1},
		{"every third", outlook{first: 30, each: 30, worth: 1}, 100, 90, ReasonDue, 3},
		{"parked", outlook{trip: 1. / 3600 / 30, quiet: true}, 10, math.Cbrt(3 * 10 * 3600 * 30), ReasonParked, 0},
		{"no rhythm", outlook{event: 0.02}, 4, 20, ReasonRate, 0},
		{"heartbeat", outlook{beat: 400, beats: 1800, sure: 0.9}, 50, 400, ReasonDue, 0},
		{"nothing to hope for", outlook{}, 1, longest, ReasonLongest, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, why, k := tc.o.wait(tc.price, longest)
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
				o := outlook{event: event, trip: trip}
				s := o.smooth(worth)
				if got := event*s*s/2 + trip*s*s*s/3; math.Abs(got-worth) > 0.01*worth {
					t.Errorf("event %v, trip %v: got %v worth %v, want %v", event, trip, s, got, worth)
				}
			}
		}
	}
}

func TestMarketMeetsTheSupply(t *testing.T) {
	var m market
	for second := range 600 {
		for range 10 { // ten devices a second, each with a fix every 30 s
			o := outlook{event: 0.01}
			m.add(tick(second)*1e9, 20, 60, 1e6, &o)
		}
	}
	m.settle(5, 60, 0.01)
	// 200 devices at sqrt(2 price/0.01) s between polls are 97% of 5 a second.
	want := 0.01 / 2 * (200 / (5 * bought)) * (200 / (5 * bought))
	if math.Abs(m.price-want) > 0.05*want {
		t.Errorf("price: got %.2f, want %.2f", m.price, want)
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

// What a device costs in memory, beside its id and an entry of a map.
func TestDeviceIsSmall(t *testing.T) {
	const queues, perQueue = 2, unsafe.Sizeof(entry{}) + 4
	got := unsafe.Sizeof(device{}) + queues*perQueue + 4 + unsafe.Sizeof("") + unsafe.Sizeof(presence{})
	t.Logf("%d bytes", got)
	if got > 500 {
		t.Errorf("bytes per device: got %d, want 500 at most", got)
	}
}
