package view

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// plain is a source that returns the rows of a test.
type plain struct {
	mu   sync.Mutex
	next []Device
	why  func(id string) ([]byte, bool)
}

func (p *plain) put(devices ...Device) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next = append(p.next, devices...)
}

func (p *plain) Changed(f func(Device)) {
	p.mu.Lock()
	list := p.next
	p.next = nil
	p.mu.Unlock()
	for _, d := range list {
		f(d)
	}
}

func (p *plain) Why(id string) ([]byte, bool) {
	if p.why == nil {
		return nil, false
	}
	return p.why(id)
}

// traffic is a source of vehicles that drive about in and between the cities of
// Colombia, the same ones for the same seed.
type traffic struct {
	mu   sync.Mutex
	rand *rand.Rand
	cars []car
	now  time.Time
}

type car struct {
	Device
	heading, kmh float64
	period       time.Duration // of its reports
	due          time.Time     // of the next one
}

func newTraffic(n int, start time.Time) *traffic {
	cities := []struct{ lat, lon, spread float64 }{
		{4.65, -74.1, 0.09}, {4.65, -74.1, 0.5}, {6.25, -75.57, 0.07}, {3.44, -76.52, 0.07}, {10.98, -74.81, 0.06}, {10.4, -75.5, 0.05},
		{7.12, -73.12, 0.06}, {4.81, -75.7, 0.1}, {4.44, -75.23, 0.1}, {4.14, -73.63, 0.15}, {7.89, -72.5, 0.05}, {2.94, -75.28, 0.2}, {8.75, -75.88, 0.2}, {5.54, -73.36, 0.2},
	}
	kinds := []string{"Truck", "Bus", "Van", "Tanker", "Ambulance", "Pickup", "Motorbike"}
	t := &traffic{rand: rand.New(rand.NewPCG(7, 11)), cars: make([]car, n), now: start}
	r := t.rand
	for i := range t.cars {
		city := cities[r.IntN(len(cities))]
		c := &t.cars[i]
		c.ID, c.Name = fmt.Sprintf("dev %d", i+1), fmt.Sprintf("%s %d", kinds[r.IntN(len(kinds))], i+1)
		c.Lat, c.Lon = float32(city.lat+r.NormFloat64()*city.spread), float32(city.lon+r.NormFloat64()*city.spread)
		c.heading, c.period = r.Float64()*2*math.Pi, time.Duration(5+r.IntN(25))*time.Second
		c.due = start.Add(time.Duration(r.Float64() * float64(c.period)))
		c.Fix, c.FixTime, c.Result, c.Reason, c.Polled = true, start.Add(-time.Duration(r.IntN(40))*time.Second), "unchanged", "due", start
		c.Seen = c.FixTime.Add(2 * time.Second)
		switch p := r.Float64(); {
		case p < 0.55:
			c.kmh = 15 + 75*r.Float64()
		case p < 0.59:
			c.FixTime = start.Add(-time.Duration(2+r.IntN(300)) * time.Hour)
			c.Seen, c.due = c.FixTime.Add(3*time.Second), start.Add(16*time.Minute)
		case p < 0.6:
			c.Fix = false
			c.Result = "never_reported"
		}
		switch p := r.Float64(); {
		case p < 0.012 && c.Fix:
			c.Alerts = []string{[]string{"SpeedLimit", "LowBattery", "GPSUnplugged", "SOSButton", "ForbiddenArea"}[r.IntN(5)]}
		case p < 0.018:
			c.Failures, c.Result, c.Detail = 1+r.IntN(6), "error", "503 Service Unavailable"
		}
		if i == 3 && n < 100 {
			c.Alerts = []string{"SpeedLimit", "HarshBraking"}
		}
		c.Speed, c.Next = float32(c.kmh), c.due.Add(time.Second)
	}
	return t
}

// Changed moves all devices to the present.
func (t *traffic) Changed(f func(Device)) { t.drive(time.Now(), f) }

func (t *traffic) drive(now time.Time, f func(Device)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	first := t.now
	t.now = now
	for i := range t.cars {
		c := &t.cars[i]
		if !now.After(c.due) && now.Sub(first) < time.Hour && c.Busy {
			continue
		}
		moved := false
		for ; now.After(c.due); c.due = c.due.Add(c.period) {
			moved = true
			c.Polled = c.due.Add(1500 * time.Millisecond)
			if c.kmh == 0 || !c.Fix || c.Failures > 0 {
				continue
			}
			c.heading += t.rand.NormFloat64() * 0.35
			far := c.kmh / 3600 * c.period.Seconds() / 111.2 // degrees
			c.Lat += float32(far * math.Cos(c.heading))
			c.Lon += float32(far * math.Sin(c.heading))
			c.Speed = float32(math.Max(c.kmh+t.rand.NormFloat64()*6, 3))
			c.FixTime, c.Seen, c.Result = c.due, c.due.Add(1500*time.Millisecond), "changed"
		}
		if !moved && c.Busy {
			continue
		}
		c.Next = c.due.Add(1500 * time.Millisecond)
		d := c.Device
		d.Busy = false
		c.Busy = true // reported once
		f(d)
	}
}

// Why returns eight polls.
func (t *traffic) Why(id string) ([]byte, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.cars {
		c := &t.cars[i]
		if c.ID != id {
			continue
		}
		type decision struct {
			At        time.Time `json:"at"`
			Result    string    `json:"result"`
			Detail    string    `json:"detail,omitempty"`
			Published int       `json:"published,omitempty"`
			ID        string    `json:"id,omitempty"`
			Sequence  uint64    `json:"sequence,omitempty"`
			Fields    []string  `json:"fields,omitempty"`
		}
		var list []decision
		for n := range 8 {
			d := decision{At: c.Polled.Add(-time.Duration(n) * c.period), Result: c.Result, Detail: c.Detail}
			if d.Result == "changed" {
				d.Fields = []string{"dateTime", "latitude", "longitude", "speed", "heading", "sensors.fuel"}[:3+n%4]
				d.Published, d.ID, d.Sequence = 1, fmt.Sprintf("dev=20%d-%x", i+1, 771991+n), uint64(44120-n*131)
			}
			list = append(list, d)
		}
		plan := fmt.Sprintf("reports every %.0f s, seen 1.5 s after its own time; next poll %s because a fix is due",
			c.period.Seconds(), c.Next.UTC().Format(time.TimeOnly))
		answer, err := json.Marshal(map[string]any{"deviceId": id, "plan": plan, "next": c.Next, "reason": "due", "decisions": list})
		return answer, err == nil
	}
	return nil, false
}

// busy makes a view of a fleet that has been under way for a quarter of an hour.
func busy(tb testing.TB, n int) *View {
	tb.Helper()
	now := time.Now()
	source := newTraffic(n, now.Add(-15*time.Minute))
	reg := prometheus.NewRegistry()
	v := New(Options{
		Source: source, Gatherer: reg, Version: "v1.4.0", Replica: "bridge-0", Log: slog.New(slog.DiscardHandler), Registerer: reg,
		Status: func() Status { return wellness(now) }, DeadLetters: someLetters(now),
	})
	counters := newCounters(reg, n)
	for at := source.now; at.Before(now); at = at.Add(5 * time.Second) {
		source.drive(at, func(d Device) { v.fleet.update(at, &d) })
		v.fleet.loaded = true
		v.fleet.markSent()
		counters.turn()
		if s, ok := v.history.read(at); ok {
			v.history.keep(s)
		}
	}
	v.history.gatherer = prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		counters.turn()
		return reg.Gather()
	})
	for i := range min(n, 12) {
		v.fleet.events = append(v.fleet.events, occurrence{
			At: now.Add(time.Duration(i-14) * 71 * time.Second).UnixMilli(), ID: source.cars[i].ID, Name: source.cars[i].Name,
			Alert: []string{"SpeedLimit", "HarshBraking", "LowBattery"}[i%3], Raised: i%4 != 3,
		})
	}
	return v
}

// counters are the bridge's metrics, as a fleet of n devices moves them.
type counters struct {
	n                                        float64
	polls, published, inbound, requests      *prometheus.CounterVec
	throttled                                prometheus.Counter
	age, duration                            prometheus.Histogram
	rand                                     *rand.Rand
	budget, letters, devices, here, replicas prometheus.Gauge
	pending                                  prometheus.Gauge
	turns                                    int
}

func newCounters(reg prometheus.Registerer, n int) *counters {
	vec := func(name string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "plaspy_bridge_" + name, Help: name}, labels)
		reg.MustRegister(c)
		return c
	}
	one := func(name string, value float64) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "plaspy_bridge_" + name, Help: name})
		g.Set(value)
		reg.MustRegister(g)
		return g
	}
	hist := func(name string, b []float64) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "plaspy_bridge_" + name, Help: name, Buckets: b})
		reg.MustRegister(h)
		return h
	}
	c := &counters{
		n: float64(n), rand: rand.New(rand.NewPCG(1, 2)),
		polls: vec("polls_total", "result"), published: vec("published_total", "kind"), inbound: vec("inbound_total", "kind", "result"),
		requests: vec("api_requests_total", "endpoint", "code"),
		budget:   one("api_budget_requests_per_minute", float64(n)*8), letters: one("dead_letters", 3), devices: one("devices", float64(n)*2),
		here: one("replica_devices", float64(n)), replicas: one("replicas", 2), pending: one("inbound_pending", 4),
		age: hist("fix_age_seconds", []float64{.5, 1, 2, 5, 10, 15, 30, 60}), duration: hist("poll_duration_seconds", []float64{.005, .01, .025, .05, .1, .25, .5}),
		throttled: prometheus.NewCounter(prometheus.CounterOpts{Name: "plaspy_bridge_api_throttled_total", Help: "throttled"}),
	}
	reg.MustRegister(c.throttled)
	return c
}

// turn is five seconds of work.
func (c *counters) turn() {
	c.turns++
	some := func(perSecond float64) float64 {
		return math.Max(0, math.Round(perSecond*5*(1+0.18*math.Sin(float64(c.turns)/17)+0.07*c.rand.NormFloat64())))
	}
	changed, unchanged, failed := some(c.n/28), some(c.n/19), some(c.n/2600)
	if c.turns > 70 && c.turns < 84 { // an outage
		failed, changed, unchanged = some(c.n/90), changed/3, unchanged/3
	}
	c.polls.WithLabelValues("changed").Add(changed)
	c.polls.WithLabelValues("unchanged").Add(unchanged)
	c.polls.WithLabelValues("error").Add(failed)
	c.published.WithLabelValues("location").Add(changed)
	c.published.WithLabelValues("alert").Add(some(c.n / 900))
	c.inbound.WithLabelValues("location", "posted").Add(some(c.n / 70))
	c.inbound.WithLabelValues("location", "dead").Add(0)
	c.requests.WithLabelValues("lastLocation", "200").Add(changed + unchanged + failed)
	for range int(math.Min(changed, 200)) {
		c.age.Observe(math.Exp(c.rand.NormFloat64()*0.6 + 0.7))
		c.duration.Observe(math.Exp(c.rand.NormFloat64()*0.5 - 3.4))
	}
}

func wellness(since time.Time) Status {
	part := func(name, reason string) Part {
		return Part{Name: name, OK: true, Reason: reason, Since: since.Add(-47 * time.Minute)}
	}
	odd := part("devices", "the list of 2026-01-02T03:04:05Z is in use: 503 Service Unavailable")
	odd.Degraded = true
	return Status{
		Ready: true, Live: true,
		Parts:  []Part{odd, part("inbound", ""), part("lifecycle", ""), part("nats", ""), part("publish", ""), part("state", ""), part("streams", ""), part("token", "")},
		Hearts: []Heart{{Name: "acks", OK: true, Idle: true}, {Name: "polls", OK: true}},
		Facts:  []Fact{{Name: "API", Value: "https://api.plaspy.com"}, {Name: "NATS", Value: "embedded, nats://127.0.0.1:4222"}, {Name: "Schedule", Value: "adaptive, at most 60 s"}},
	}
}

func someLetters(now time.Time) DeadLetters {
	return func(_ context.Context, limit int) ([]DeadLetter, error) {
		list := []DeadLetter{
			{Sequence: 31, At: now.Add(-time.Minute), Device: "dev 4", Kind: "location", Reason: "the API refused it", Error: "400 latitude out of range", Attempts: 1},
			{Sequence: 30, At: now.Add(-5 * time.Minute), Device: "<img src=x onerror=alert(1)>", Kind: "alert", Reason: "too old", Error: "24h0m0s since the stream took it", Attempts: 211},
			{Sequence: 12, At: now.Add(-50 * time.Hour), Kind: "unknown", Reason: "its subject is neither of the two", Attempts: 0},
		}
		return list[:min(limit, len(list))], nil
	}
}
