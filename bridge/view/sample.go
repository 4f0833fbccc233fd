package view

import (
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// The charts show the last 15 minutes.
const (
	sampleEvery = 5 * time.Second
	samplesKept = int(15 * time.Minute / sampleEvery)
	// quantileSpan is the number of samples that a quantile covers. A small fleet has
	// too few observations in five seconds.
	quantileSpan = 12
)

// series is one number of a sample and its source: the rate of a counter per second,
// a gauge, or a quantile of a histogram.
type series struct {
	name     string // in the page
	metric   string
	label    string // selects metrics with one of values; empty means all
	values   []string
	kind     kind
	quantile float64
}

type kind uint8

const (
	rate kind = iota
	gauge
	quantile
)

// charted are the numbers of a sample, in this order.
var charted = []series{
	{name: "changed", metric: "plaspy_bridge_polls_total", label: "result", values: []string{"changed"}},
	{name: "unchanged", metric: "plaspy_bridge_polls_total", label: "result", values: []string{"unchanged"}},
	{name: "failed", metric: "plaspy_bridge_polls_total", label: "result", values: []string{"error"}},
	{name: "locations", metric: "plaspy_bridge_published_total", label: "kind", values: []string{"location"}},
	{name: "alerts", metric: "plaspy_bridge_published_total", label: "kind", values: []string{"alert"}},
	{name: "posted", metric: "plaspy_bridge_inbound_total", label: "result", values: []string{"posted"}},
	{name: "retried", metric: "plaspy_bridge_inbound_total", label: "result", values: []string{"retried"}},
	{name: "dead", metric: "plaspy_bridge_inbound_total", label: "result", values: []string{"dead"}},
	{name: "requests", metric: "plaspy_bridge_api_requests_total"},
	{name: "throttled", metric: "plaspy_bridge_api_throttled_total"},
	{name: "budget", metric: "plaspy_bridge_api_budget_requests_per_minute", kind: gauge},
	{name: "pending", metric: "plaspy_bridge_inbound_pending", kind: gauge},
	{name: "deadLetters", metric: "plaspy_bridge_dead_letters", kind: gauge},
	{name: "devices", metric: "plaspy_bridge_devices", kind: gauge},
	{name: "replicaDevices", metric: "plaspy_bridge_replica_devices", kind: gauge},
	{name: "replicas", metric: "plaspy_bridge_replicas", kind: gauge},
	{name: "age50", metric: "plaspy_bridge_fix_age_seconds", kind: quantile, quantile: 0.5},
	{name: "age95", metric: "plaspy_bridge_fix_age_seconds", kind: quantile, quantile: 0.95},
	{name: "poll50", metric: "plaspy_bridge_poll_duration_seconds", kind: quantile, quantile: 0.5},
	{name: "poll95", metric: "plaspy_bridge_poll_duration_seconds", kind: quantile, quantile: 0.95},
}

// sample is a time in Unix milliseconds and one number for each series, NaN if there
// is none.
type sample struct {
	at     int64
	values []float64
}

// MarshalJSON writes an array, with null for NaN, which JSON does not have.
func (s sample) MarshalJSON() ([]byte, error) {
	b := strconv.AppendInt([]byte{'['}, s.at, 10)
	for _, v := range s.values {
		if b = append(b, ','); math.IsNaN(v) || math.IsInf(v, 0) {
			b = append(b, "null"...)
		} else {
			b = strconv.AppendFloat(b, math.Round(v*1e4)/1e4, 'f', -1, 64)
		}
	}
	return append(b, ']'), nil
}

// history holds the data of the charts. The view's mutex guards samples; only the
// goroutine of Run uses the other fields.
type history struct {
	gatherer prometheus.Gatherer
	last     map[string]*dto.MetricFamily
	lastAt   time.Time
	buckets  map[string][]buckets // the last quantileSpan of each histogram
	samples  []sample             // oldest first
}

// read takes a sample. ok is false for the first one, which has no rates yet.
func (h *history) read(now time.Time) (s sample, ok bool) {
	// Gather returns partial results with an error, and /metrics reports that error.
	families, _ := h.gatherer.Gather()
	byName := make(map[string]*dto.MetricFamily, len(families))
	for _, f := range families {
		byName[f.GetName()] = f
	}
	elapsed := now.Sub(h.lastAt).Seconds()
	last := h.last
	h.last, h.lastAt = byName, now
	for name, list := range h.buckets {
		list = append(list, bucketsOf(byName[name]))
		h.buckets[name] = list[max(len(list)-quantileSpan-1, 0):]
	}
	if last == nil || elapsed <= 0 {
		return sample{}, false
	}
	s = sample{at: now.UnixMilli(), values: make([]float64, len(charted))}
	for i, c := range charted {
		switch c.kind {
		case rate:
			s.values[i] = math.Max(c.sum(byName)-c.sum(last), 0) / elapsed
		case gauge:
			s.values[i] = c.sum(byName)
		case quantile:
			list := h.buckets[c.metric]
			s.values[i] = list[len(list)-1].since(list[0]).quantile(c.quantile)
		}
	}
	return s, true
}

func newHistory(g prometheus.Gatherer) *history {
	h := &history{gatherer: g, buckets: make(map[string][]buckets)}
	for _, c := range charted {
		if c.kind == quantile {
			h.buckets[c.metric] = nil
		}
	}
	return h
}

// keep stores a sample and removes those that are older than the charts show.
func (h *history) keep(s sample) {
	h.samples = append(h.samples, s)
	h.samples = slices.Delete(h.samples, 0, max(len(h.samples)-samplesKept, 0))
}

// sum adds up a family's metrics. It returns NaN for a gauge that does not exist.
func (c *series) sum(families map[string]*dto.MetricFamily) float64 {
	family := families[c.metric]
	if family == nil {
		if c.kind == rate {
			return 0
		}
		return math.NaN()
	}
	total := 0.0
	for _, m := range family.GetMetric() {
		if c.label != "" && !labelled(m, c.label, c.values) {
			continue
		}
		total += m.GetCounter().GetValue() + m.GetGauge().GetValue()
	}
	return total
}

func labelled(m *dto.Metric, label string, values []string) bool {
	return slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool {
		return l.GetName() == label && slices.Contains(values, l.GetValue())
	})
}

// buckets are a histogram's cumulative counts.
type buckets struct {
	bounds []float64
	counts []float64
	total  float64
}

func bucketsOf(family *dto.MetricFamily) buckets {
	var b buckets
	for _, m := range family.GetMetric() {
		hist := m.GetHistogram()
		b.total += float64(hist.GetSampleCount())
		for i, bucket := range hist.GetBucket() {
			if i == len(b.bounds) {
				b.bounds, b.counts = append(b.bounds, bucket.GetUpperBound()), append(b.counts, 0)
			}
			b.counts[i] += float64(bucket.GetCumulativeCount())
		}
	}
	return b
}

// since returns the counts since an earlier state.
func (b buckets) since(before buckets) buckets {
	if len(before.counts) != len(b.counts) {
		return b
	}
	d := buckets{bounds: b.bounds, total: b.total - before.total, counts: slices.Clone(b.counts)}
	for i, n := range before.counts {
		d.counts[i] -= n
	}
	return d
}

// quantile interpolates within a bucket, as Prometheus does. It returns NaN if
// there are no observations.
func (b buckets) quantile(q float64) float64 {
	if b.total <= 0 || len(b.bounds) == 0 {
		return math.NaN()
	}
	rank, low, below := q*b.total, 0.0, 0.0
	for i, n := range b.counts {
		if n >= rank && !math.IsInf(b.bounds[i], 1) {
			if n == below {
				return b.bounds[i]
			}
			return low + (b.bounds[i]-low)*(rank-below)/(n-below)
		}
		low, below = b.bounds[i], n
	}
	return low // beyond the last bound
}
