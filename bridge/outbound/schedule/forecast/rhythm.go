package forecast

import "math"

// rhythm is the period at which a device makes fixes, learnt from the gaps between the times of the
// fixes that polls saw. If fixes were missed between two polls, the gap is a multiple of the period,
// and how large a multiple is known only as far as an empty poll in between limits it.
type rhythm struct {
	period   float32 // seconds, 0: not known
	fit      float32 // share of gaps that are a multiple of the period, a running mean
	evidence float32 // how much likelier each gap is with the period than without, a running mean of logarithms
	gaps     [gapsKept]float32
	most     [gapsKept]uint8 // the largest multiple that the polls in between leave possible
	count    uint8           // gaps ever, up to gapsKept
	at       uint8           // index of the next gap
	strays   uint8           // gaps off the period in a row
	shared   bool            // the only gap is a period that many devices of the fleet have
	unproven uint8           // fixes since an empty poll showed that the period is not a fraction
}

const gapsKept = 6

// chances is the logarithm of how many periods a refit tries, of which the best explains even gaps
// that have none.
const chances = 3

// known reports whether the period can be used to predict.
func (r *rhythm) known() bool {
	return r.period > 0 && (r.count >= 2 || r.shared) && r.fit >= 0.45 && r.evidence > 0.3
}

// spread is how much a gap of n periods varies: whole seconds at both ends, and the timer.
func spread(gap, n float64) float64 { return 0.5 + 0.25*math.Sqrt(n) + 0.002*gap }

// multiple returns how many periods the gap is, and 0 if it is off.
func multiple(gap, period float64, most uint8) float64 {
	n := max(1, math.Round(gap/period))
	if n > float64(most) || math.Abs(gap-n*period) > min(3*spread(gap, n), 0.25*period+0.5) {
		return 0
	}
	return n
}

// add learns a gap, of at most so many periods.
func (r *rhythm) add(gap float64, most uint8, fleet *periods) (fits bool) {
	r.gaps[r.at], r.most[r.at] = float32(gap), most
	r.at = (r.at + 1) % gapsKept
	r.count = min(r.count+1, gapsKept)
	if r.period > 0 {
		r.evidence += float32(min(r.gain(float64(r.period), gap, most), 2)-float64(r.evidence)) * 0.15
		if n := multiple(gap, float64(r.period), most); n > 0 {
			r.period += float32((gap/n - float64(r.period)) * 0.25)
			r.fit += (1 - r.fit) * 0.12
			r.strays = 0
			return true
		}
		r.fit -= r.fit * 0.12
		r.strays++
	}
	if r.period == 0 || r.strays >= 2 || r.count < 4 {
		r.refit()
		r.shared = r.count == 1 && fleet.common(gap)
	}
	return false
}

// refit looks for the period that explains the gaps kept best.
func (r *rhythm) refit() {
	n := int(r.count)
	if n == 1 {
		r.period, r.fit, r.evidence = r.gaps[0], 0.6, 0.5
		return
	}
	best, score := 0., math.Inf(-1)
	for i := range n {
		for d := 1; d <= min(int(r.most[i]), 12); d++ {
			p := float64(r.gaps[i]) / float64(d)
			if p < 0.8 {
				break
			}
			if s := r.score(p, n); s > score {
				best, score = p, s
			}
		}
	}
	hits, mean := r.mean(best, n)
	if hits < 2 {
		return
	}
	r.period, r.strays = float32(mean), 0
	r.fit = max(r.fit, float32(hits)/float32(n)*0.9)
	r.evidence = float32(min((score-chances)/float64(n), 2))
}

// score is how much likelier the gaps are with period p than without one, as a logarithm.
func (r *rhythm) score(p float64, n int) float64 {
	sum := 0.
	for j := range n {
		sum += r.gain(p, float64(r.gaps[j]), r.most[j])
	}
	return sum
}

// gain is a gap's share in that: the larger the period, the less of a coincidence it is that the gap
// is a multiple of it. A gap that is not counts against the period, but no more than a stray may.
func (r *rhythm) gain(p, gap float64, most uint8) float64 {
	m := min(max(1, math.Round(gap/p)), float64(most))
	s := spread(gap, m)
	off := (gap - m*p) / s
	return max(math.Log(p/s)-off*off/2-0.9, -1)
}

// mean is the mean period of the gaps that are multiples of p, and how many are.
func (r *rhythm) mean(p float64, n int) (hits int, mean float64) {
	var gaps, periods float64
	for j := range n {
		if m := multiple(float64(r.gaps[j]), p, r.most[j]); m > 0 {
			hits++
			gaps += float64(r.gaps[j])
			periods += m
		}
	}
	return hits, gaps / max(1, periods)
}

// looked records the age of the newest fix at a poll. Were the period a fraction of
// the one assumed, a fix older than half of it would not be the newest.
func (r *rhythm) looked(age float64) {
	if age > 0.52*float64(r.period) {
		r.unproven = 0
	} else if r.unproven < 255 {
		r.unproven++
	}
}

// doubtful reports whether it is time to look between two predicted fixes.
func (r *rhythm) doubtful() bool { return r.unproven >= 24 }

// periods are the periods on the road that many devices of the fleet share: trackers are sold with a
// handful of settings. One gap that equals a common period is then enough to know a device's rhythm.
type periods struct {
	seconds [periodsKept]float32
	fixes   [periodsKept]float32 // that fitted the period, with forgetting
	all     float32              // the same for every fix that fitted any period
}

const (
	periodsKept  = 16
	commonShare  = 0.05  // of all fixes, from which a period is common
	periodsAfter = 200   // fixes before any period counts as common
	periodsMost  = 20000 // fixes after which old ones are forgotten
)

// saw counts a fix of a device with that period, in seconds.
func (p *periods) saw(seconds float64) {
	p.all++
	at, least := 0, 0
	for at < periodsKept && math.Abs(float64(p.seconds[at])-seconds) > 0.3+0.01*seconds {
		if p.fixes[at] < p.fixes[least] {
			least = at
		}
		at++
	}
	if at == periodsKept {
		at = least
		p.seconds[at], p.fixes[at] = float32(seconds), 0
	}
	p.fixes[at]++
	p.seconds[at] += (float32(seconds) - p.seconds[at]) * 0.01
	if p.all > periodsMost {
		p.all /= 2
		for i := range p.fixes {
			p.fixes[i] /= 2
		}
	}
}

// common reports whether a gap in seconds is a period that many devices share. A nil p knows none.
func (p *periods) common(gap float64) bool {
	if p == nil || p.all < periodsAfter {
		return false
	}
	for i, seconds := range p.seconds {
		if p.fixes[i] > commonShare*p.all && math.Abs(gap-float64(seconds)) < 2*spread(gap, 1) {
			return true
		}
	}
	return false
}
