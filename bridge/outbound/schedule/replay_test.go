package schedule_test

import (
	"math"
	"sort"
	"time"

	"plaspy-bridge/bridge/outbound/schedule"
)

// replay runs a policy against the fixes of the trackers: one request at a time, evenly spaced as the
// rate allows, each answered after a while.
type replay struct {
	trackers []tracker
	rate     float64       // requests a minute, 0: no limit
	answer   time.Duration // from the request to its answer; the API looks half-way
	horizon  time.Duration
	batch    time.Duration // requests are sent at its multiples only, as many at once as fit; 0 means one at a time
	only     int           // of the trackers are added at the beginning; 0 means all
	from     time.Duration // earlier fixes are not counted

	// fault, if set, may change an observation.
	fault func(now time.Duration, id string, o *schedule.Observation)
	// at, if set, is called before each request.
	at func(now time.Duration, p *schedule.Schedule)
	// swap, if set, is called before each request and may return another schedule to go on with; the
	// polls under way are then lost, and nothing is polled before then.
	// known is the index of the last fix that was seen of each tracker, in and out; nil means none.
	known []int
	swap  func(now time.Duration, p *schedule.Schedule) (next *schedule.Schedule, then time.Duration)
}

// asked is one request of a run.
type asked struct {
	at, looked, answered time.Duration
	device               int
}

// run returns the requests made.
func (r *replay) run(p *schedule.Schedule) []asked {
	now, begin := time.Duration(0), start
	p.SetRate(begin, r.rate)
	index := make(map[string]int, len(r.trackers))
	seen := make([]int, len(r.trackers))
	for i, d := range r.trackers {
		if r.only == 0 || i < r.only {
			p.Add(begin, d.id)
		}
		index[d.id] = i
		seen[i] = -1
		if i < len(r.known) {
			seen[i] = r.known[i]
		}
	}
	log := make([]asked, 0, int(r.rate*r.horizon.Minutes())+len(r.trackers))
	done := 0
	finish := func(until time.Duration) {
		for ; done < len(log) && log[done].answered <= until; done++ {
			q := log[done]
			o := r.look(q, &seen[q.device])
			if r.fault != nil {
				r.fault(q.answered, r.trackers[q.device].id, &o)
			}
			p.Done(begin.Add(q.answered), r.trackers[q.device].id, o)
		}
	}
	var slot time.Duration
	for now < r.horizon {
		if r.batch > 0 {
			now = (now + r.batch - 1) / r.batch * r.batch
		}
		finish(now)
		if r.at != nil {
			r.at(now, p)
		}
		if r.swap != nil {
			if next, then := r.swap(now, p); next != p {
				p, now, done = next, then, len(log)
				continue
			}
		}
		id, ok, wake := p.Next(begin.Add(now))
		if ok {
			q := asked{at: now, looked: now + r.answer/2, answered: now + r.answer, device: index[id]}
			log = append(log, q)
			if r.rate > 0 {
				slot = max(slot, now-r.batch) + time.Duration(float64(time.Minute)/r.rate)
				now = max(now, slot)
			}
			continue
		}
		next := r.horizon
		if !wake.IsZero() {
			next = max(now+1, wake.Sub(begin))
		}
		if done < len(log) {
			next = min(next, max(now, log[done].answered))
		}
		now = next
	}
	finish(r.horizon + r.answer)
	r.known = seen
	return log
}

// look is one answer of the API.
func (r *replay) look(q asked, seen *int) schedule.Observation {
	o := schedule.Observation{Speed: math.NaN(), Input: -1}
	fixes := r.trackers[q.device].fixes
	i := sort.Search(len(fixes), func(i int) bool { return fixes[i].visible > q.looked }) - 1
	if i < 0 {
		return o
	}
	f := fixes[i]
	o.Fix, o.FixTime, o.Changed = true, start.Add(f.stamp), i != *seen
	o.Speed, o.Input = float64(f.speed), f.input
	*seen = i
	return o
}

// result is how fresh a run kept the fleet.
type result struct {
	Fixes    int     // became visible in the time that counts
	Requests int     // were made in it
	Fetched  int     // fixes that were seen before the next one replaced them
	Mean     float64 // delay in seconds, over every fix until it or a newer one was fetched
	P50, P95 float64
	Trips    float64 // median delay of a trip's first fix
	delays   []float64
}

func (r result) missed() float64   { return 1 - float64(r.Fetched)/float64(r.Fixes) }
func (r result) requests() float64 { return float64(r.Requests) / float64(max(1, r.Fetched)) }

func (r *replay) judge(log []asked) result {
	var out result
	polls := perDevice(log, len(r.trackers))
	for _, q := range log {
		if q.looked >= r.from {
			out.Requests++
		}
	}
	out.delays = make([]float64, 0, made(r.trackers, r.from, r.horizon))
	var trips []float64
	for i, d := range r.trackers {
		for j, f := range d.fixes {
			if f.visible < r.from || f.visible >= r.horizon {
				continue
			}
			k := sort.Search(len(polls[i]), func(k int) bool { return polls[i][k].looked >= f.visible })
			end := r.horizon
			if k < len(polls[i]) {
				end = polls[i][k].answered
				if j+1 == len(d.fixes) || polls[i][k].looked < d.fixes[j+1].visible {
					out.Fetched++
				}
			}
			out.Fixes++
			delay := max(0, end-f.visible).Seconds()
			out.delays = append(out.delays, delay)
			if f.begins {
				trips = append(trips, delay)
			}
		}
	}
	sort.Float64s(out.delays)
	sort.Float64s(trips)
	for _, d := range out.delays {
		out.Mean += d / float64(len(out.delays))
	}
	out.P50, out.P95, out.Trips = quantile(out.delays, 0.5), quantile(out.delays, 0.95), quantile(trips, 0.5)
	return out
}

// perDevice is the requests of each of n devices.
func perDevice(log []asked, n int) [][]asked {
	counts := make([]int, n)
	for _, q := range log {
		counts[q.device]++
	}
	out := make([][]asked, n)
	for i, count := range counts {
		out[i] = make([]asked, 0, count)
	}
	for _, q := range log {
		out[q.device] = append(out[q.device], q)
	}
	return out
}

func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// events is the mean delay of the extra fixes of the first n trackers.
func (r *replay) events(log []asked, n int) float64 {
	sum, count := 0., 0
	for i, polls := range perDevice(log, len(r.trackers))[:n] {
		for _, f := range r.trackers[i].fixes {
			if !f.extra || f.visible < r.from || f.visible >= r.horizon {
				continue
			}
			k := sort.Search(len(polls), func(k int) bool { return polls[k].looked >= f.visible })
			end := r.horizon
			if k < len(polls) {
				end = polls[k].answered
			}
			sum += (end - f.visible).Seconds()
			count++
		}
	}
	return sum / float64(max(1, count))
}
