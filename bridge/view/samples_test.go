package view

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestSamples(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := newCounters(reg, 0)
	running(t, Options{Source: &plain{}, Gatherer: reg}, func(t *testing.T, v *View) {
		w := watch(t, v)
		c.polls.WithLabelValues("changed").Add(50)
		c.polls.WithLabelValues("error").Add(5)
		c.budget.Set(600)
		for range 100 {
			c.age.Observe(1.5)
		}
		for range 6 {
			second()
		}
		w.catchUp()
		if len(w.sample) != 1 {
			t.Fatalf("%d samples in six seconds, want 1", len(w.sample))
		}
		got := map[string]string{}
		fields := strings.Split(strings.Trim(string(w.sample[0]), "[]"), ",")
		for i, c := range w.hello.Columns {
			got[c] = fields[i+1]
		}
		for name, want := range map[string]string{"changed": "10", "failed": "1", "unchanged": "0", "budget": "600", "age50": "1.5", "poll50": "null", "replicas": "2"} {
			if got[name] != want {
				t.Errorf("%s: %s, want %s", name, got[name], want)
			}
		}
		time.Sleep(20 * time.Minute)
		v.mu.Lock()
		n := len(v.history.samples)
		v.mu.Unlock()
		if n != samplesKept {
			t.Errorf("%d samples kept, want %d", n, samplesKept)
		}
	})
}

func TestQuantile(t *testing.T) {
	b := func(total float64, counts ...float64) buckets {
		return buckets{bounds: []float64{1, 2, 4}[:len(counts)], counts: counts, total: total}
	}
	tests := []struct {
		name string
		b    buckets
		q    float64
		want float64
	}{
		{"nothing", b(0, 0, 0, 0), 0.5, math.NaN()},
		{"no buckets", b(9), 0.5, math.NaN()},
		{"in the first", b(10, 10, 10, 10), 0.5, 0.5},
		{"between", b(10, 0, 10, 10), 0.5, 1.5},
		{"in the last", b(8, 0, 4, 8), 0.75, 3},
		{"beyond all", b(10, 0, 0, 2), 0.95, 4},
		{"since", b(30, 10, 30, 30).since(b(20, 10, 20, 20)), 0.5, 1.5},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.b.quantile(tt.q); got != tt.want && !(math.IsNaN(got) && math.IsNaN(tt.want)) {
				t.Errorf("%g, want %g", got, tt.want)
			}
		})
	}
}

// FuzzFrame checks that any text arrives unchanged, within one event.
func FuzzFrame(f *testing.F) {
	f.Add("dev 1", "Truck", "SpeedLimit", "changed")
	f.Add("\n\ndata: {}\n\n", "</script><script>alert(1)</script>", "\u2028\x00\xff", `"\`)
	f.Fuzz(func(t *testing.T, id, name, alert, result string) {
		fl := newFleet()
		now := time.Now()
		fl.update(now, &Device{ID: id, Name: name, Fix: true, FixTime: now, Seen: now, Alerts: []string{alert}, Result: result})
		var out frame
		out.fleet(now, fl.changed, 0, nil, nil)
		p := newPage(t)
		p.take(out.buf)
		valid := func(s string) string { return strings.ToValidUTF8(s, "\ufffd") }
		got := *p.row(0)
		// Every bad byte is one replacement character here, and a run of them one there.
		squeeze := func(s string) string { return string(slices.Compact([]rune(s))) }
		for _, pair := range [][2]string{{got.ID, id}, {got.Name, name}, {got.Alerts[0], alert}, {got.Result, result}} {
			if squeeze(pair[0]) != squeeze(valid(pair[1])) {
				t.Errorf("%q, want %q", pair[0], pair[1])
			}
		}
	})
}
