package fleet

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// life is every fix that a device shows in a span of time.
func life(t testing.TB, id string, seed uint64, p Profile, span time.Duration) []Fix {
	t.Helper()
	d := NewDevice(id, seed, start, p, 1<<20)
	var fixes []Fix
	d.History(start.Add(span), func(f *Fix) { fixes = append(fixes, *f) })
	return fixes
}

func metres(a, b *Fix) float64 {
	lat0, lon0 := a.Position()
	lat1, lon1 := b.Position()
	return math.Hypot((lat1-lat0)*metresPerDegree, (lon1-lon0)*metresPerDegreeLon)
}

func TestSameSeedSameLife(t *testing.T) {
	render := func(fixes []Fix) []string {
		var out []string
		for i := range fixes {
			b, hole := fixes[i].AppendJSON(nil)
			out = append(out, fmt.Sprintf("%s %d %s", fixes[i].Visible(), hole, b))
		}
		return out
	}
	a, b := life(t, "device1", 7, Mixed, 6*time.Hour), life(t, "device1", 7, Mixed, 6*time.Hour)
	if diff := cmp.Diff(render(a), render(b)); diff != "" {
		t.Errorf("the same seed gave different fixes (-first +second):\n%s", diff)
	}
	other := life(t, "device1", 8, Mixed, 6*time.Hour)
	if cmp.Equal(render(a), render(other)) {
		t.Error("another seed gave the same fixes")
	}
}

// The number of requests for a device must not change its fixes.
func TestAskingChangesNothing(t *testing.T) {
	for seed := range uint64(20) {
		want := life(t, "a", seed, Mixed, 3*time.Hour)
		d := NewDevice("a", seed, start, Mixed, 1<<20)
		r := rand.New(rand.NewPCG(seed, 1))
		for at := time.Duration(0); at < 3*time.Hour; at += time.Duration(r.Int64N(int64(40 * time.Second))) {
			f, ok := d.Poll(start.Add(at))
			if ok && f.Visible().After(start.Add(at)) {
				t.Fatalf("seed %d: a fix visible at %s was shown at %s", seed, f.Visible(), start.Add(at))
			}
		}
		var got []Fix
		d.History(start.Add(3*time.Hour), func(f *Fix) { got = append(got, *f) })
		if !cmp.Equal(got, want, cmp.AllowUnexported(Fix{}, crossing{})) {
			t.Fatalf("seed %d: %d fixes seen by asking, %d without", seed, len(got), len(want))
		}
	}
}

func TestPlausible(t *testing.T) {
	profiles := map[string]Profile{"mixed": Mixed, "every second": EverySecond, "every 5 s": Every(5 * time.Second), "every 30 s": Every(30 * time.Second)}
	courses := 0
	for name, p := range profiles {
		t.Run(name, func(t *testing.T) {
			var km float64
			for seed := range uint64(30) {
				fixes := life(t, "car", seed, p, 2*time.Hour)
				for i := 1; i < len(fixes); i++ {
					a, b := &fixes[i-1], &fixes[i]
					courses += check(t, seed, a, b)
					km += metres(a, b) / 1000
				}
			}
			if km < 100 {
				t.Errorf("30 devices drove %.0f km in 2 hours, want at least 100", km)
			}
		})
	}
	if courses < 100 {
		t.Errorf("only %d courses could be checked", courses)
	}
}

// check compares two consecutive fixes with the limits of a vehicle, and counts
// the courses that could be checked.
func check(t *testing.T, seed uint64, a, b *Fix) (courses int) {
	t.Helper()
	dt := b.Time().Sub(a.Time())
	if dt <= 0 {
		t.Fatalf("seed %d: times go from %s to %s", seed, a.Time(), b.Time())
	}
	if b.Visible().Before(a.Visible()) || b.Visible().Before(b.Measured()) {
		t.Fatalf("seed %d: measured %s, visible %s, the one before visible %s", seed, b.Measured(), b.Visible(), a.Visible())
	}
	// 10 m are the receiver's noise.
	if kmh := 3.6 * (metres(a, b) - 10) / dt.Seconds(); kmh > 110 {
		t.Fatalf("seed %d: %.0f m in %s is %.0f km/h", seed, metres(a, b), dt, kmh)
	}
	if drift := math.Abs(b.SpeedKMH()-a.SpeedKMH()) / dt.Seconds(); drift > 3.6*5 {
		t.Fatalf("seed %d: from %.1f to %.1f km/h in %s", seed, a.SpeedKMH(), b.SpeedKMH(), dt)
	}
	// The heading matches the direction between two fixes.
	if straight := a.CourseDegrees() == b.CourseDegrees(); straight && metres(a, b) > 60 && dt < 6*time.Second {
		lat0, lon0 := a.Position()
		lat1, lon1 := b.Position()
		went := math.Atan2((lon1-lon0)*metresPerDegreeLon, (lat1-lat0)*metresPerDegree) * 180 / math.Pi
		if off := math.Abs(math.Remainder(went-a.CourseDegrees(), 360)); off > 15 {
			t.Fatalf("seed %d: course %.1f, but went %.1f", seed, a.CourseDegrees(), went)
		}
		courses++
	}
	return courses
}

func TestEverySecondShowsEachSecond(t *testing.T) {
	fixes := life(t, "a", 1, EverySecond, time.Minute)
	if got, want := len(fixes), 61; got != want {
		t.Errorf("got %d fixes in the minute and before it, want %d", got, want)
	}
	for i := 1; i < len(fixes); i++ {
		if got := fixes[i].Visible().Sub(fixes[i-1].Visible()); got != time.Second {
			t.Errorf("fix %d is %s after the one before, want 1s", i, got)
		}
	}
}

func TestUnchangedStays(t *testing.T) {
	if got := len(life(t, "a", 1, Unchanged, 1000*time.Hour)); got != 1 {
		t.Errorf("got %d fixes, want 1", got)
	}
	d := NewDevice("a", 1, start, Unchanged, 1)
	d.Poll(start)
	if d.foresee() {
		t.Errorf("a next fix at %s, want none", time.Unix(0, d.queue[0].visible))
	}
}

func TestPercentChanges(t *testing.T) {
	for _, p := range []float64{0, 5, 50, 100} {
		t.Run(fmt.Sprint(p), func(t *testing.T) {
			d := NewDevice("a", 1, start, Percent(p), 1)
			d.Poll(start)
			before := d.Count()
			for i := range 4000 {
				d.Poll(start.Add(time.Duration(i) * time.Second / 10))
			}
			got := float64(d.Count()-before) / 40
			if math.Abs(got-p) > 2 {
				t.Errorf("%.1f%% of the polls changed, want %.0f%%", got, p)
			}
		})
	}
}

// The mix is as the documentation of Mixed says.
func TestMixedFleet(t *testing.T) {
	const n = 2000
	var fixes, late, burst, silent, alerts int
	names := map[string]int{}
	for i := range n {
		d := NewDevice(fmt.Sprint("device", i), 1, start, Mixed, 1<<16)
		if _, ok := d.Poll(start); !ok {
			silent++
		}
		var last *Fix
		d.History(start.Add(time.Hour), func(f *Fix) {
			fixes++
			if f.flags&wasBuffered != 0 {
				late++
			}
			if last != nil && f.Visible().Sub(last.Visible()) < 100*time.Millisecond {
				burst++
			}
			if f.Alerts() != 0 {
				alerts++
				f.Alerts().Each(func(a Alert) { names[a.String()]++ })
			}
			c := *f
			last = &c
		})
	}
	perMinute := float64(fixes) / 60 * 1000 / n
	t.Logf("per 1000 devices: %.0f fixes a minute; %d%% late, %d%% in bursts, %d%% with alerts; %d silent at the start; alerts %v",
		perMinute, 100*late/fixes, 100*burst/fixes, 100*alerts/fixes, silent, names)
	for _, c := range []struct {
		what      string
		got       float64
		low, high float64
	}{
		{"fixes a minute of 1000 devices", perMinute, 400, 1200},
		{"share sent late", float64(late) / float64(fixes), 0.005, 0.1},
		{"share in bursts", float64(burst) / float64(fixes), 0.02, 0.3},
		{"share with alerts", float64(alerts) / float64(fixes), 0.03, 0.5},
		{"share silent at the start", float64(silent) / n, 0.003, 0.02},
	} {
		if c.got < c.low || c.got > c.high {
			t.Errorf("%s: got %.3f, want %.3f to %.3f", c.what, c.got, c.low, c.high)
		}
	}
	for _, name := range alertNames {
		if names[name] == 0 && name != "NoMovementTime" { // that one takes four hours
			t.Errorf("no %s in an hour of %d devices", name, n)
		}
	}
}

func TestFixJSON(t *testing.T) {
	for seed := range uint64(50) {
		for _, f := range life(t, "a", seed, Mixed, 30*time.Minute) {
			b, hole := f.AppendJSON(nil)
			whole := fmt.Sprintf("%s%d%s", b[:hole], 17, b[hole:])
			var got struct {
				DateTime            time.Time
				Latitude, Longitude float64
				Speed, Course       float64
				InactiveSeconds     int
				Milleage            float64
				Alerts, AlertTexts  []string
				HasCriticalAlert    bool
				Attributes          map[string]string
				Inputs, Outputs     []bool
			}
			if err := json.Unmarshal([]byte(whole), &got); err != nil {
				t.Fatalf("%v in %s", err, whole)
			}
			lat, lon := f.Position()
			if got.Latitude != lat || got.Longitude != lon || got.Speed != f.SpeedKMH() || got.Course != f.CourseDegrees() {
				t.Fatalf("got %+v of %s", got, whole)
			}
			if want := f.Time().Truncate(time.Millisecond); !got.DateTime.Equal(want) {
				t.Fatalf("got dateTime %s, want %s", got.DateTime, want)
			}
			if got.InactiveSeconds != 17 || got.Milleage == 0 || len(got.Attributes) < 5 || len(got.Alerts) != len(got.AlertTexts) {
				t.Fatalf("got %+v of %s", got, whole)
			}
			if len(whole) < 550 || len(whole) > 1000 {
				t.Fatalf("%d bytes, want 550 to 1000: %s", len(whole), whole)
			}
		}
	}
}

func TestAppendFixed(t *testing.T) {
	for _, c := range []struct {
		n      int64
		places int
		want   string
	}{
		{0, 6, "0.000000"}, {-74100001, 6, "-74.100001"}, {5, 3, "0.005"}, {-5, 3, "-0.005"}, {1234567, 3, "1234.567"}, {1000, 3, "1.000"},
	} {
		if got := string(appendFixed(nil, c.n, c.places)); got != c.want {
			t.Errorf("appendFixed(%d, %d) = %s, want %s", c.n, c.places, got, c.want)
		}
	}
}

func TestParseProfile(t *testing.T) {
	for _, name := range []string{"", "mixed", "every-second", "unchanged", "every:30s", "percent:5", "percent:0.5"} {
		if p, err := ParseProfile(name); err != nil || p == nil {
			t.Errorf("ParseProfile(%q): %v", name, err)
		}
	}
	for _, name := range []string{"fast", "every", "every:0s", "every:-1s", "percent:101", "percent:NaN", "percent:"} {
		if _, err := ParseProfile(name); err == nil {
			t.Errorf("ParseProfile(%q): no error", name)
		}
	}
}

func BenchmarkFix(b *testing.B) {
	d := NewDevice("a", 1, start, EverySecond, 1)
	now := start
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Second)
		d.Poll(now)
	}
}

func BenchmarkRender(b *testing.B) {
	d := NewDevice("a", 1, start, Mixed, 1)
	f, _ := d.Poll(start.Add(time.Hour))
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf, _ = f.AppendJSON(buf[:0])
	}
}
