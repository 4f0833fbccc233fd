package forecast

import "math"

// lag is how long after its own time a fix of the device appears, by the caller's clock: the upload,
// the difference between the clocks, a wrong time zone, all in one. A poll never shows the lag
// itself, only that it lies between the poll before and this one. So the estimate keeps how likely each
// stretch of seconds is: every fix shifts weight to the stretches in which it may have appeared, in
// proportion to their weight (the self-consistent estimate for interval-censored data, with
// forgetting). The stretches get shorter as the weight gathers, from minutes to fractions of a second.
type lag struct {
	from    float64                // where the first stretch begins, seconds
	width   float32                // of a stretch, seconds
	weight  [stretchesOfLag]uint16 // in shares of one
	first   uint8                  // stretch near the smallest lag
	fixes   uint8                  // learnt from, up to 254
	unseen  uint8                  // fixes since a poll was early enough to show that they do not come earlier still
	strikes uint8                  // fixes in a row that came far later than they could
}

const (
	stretchesOfLag = 16
	narrowest      = 0.35 // seconds
	far            = 30.  // seconds beyond the last stretch at which it is not the upload that varies
	forget         = 0.07
	trace          = 0.004 // of the weight is everywhere, so that unlikely stretches can recover
)

// one is the sum of all weights, but for rounding.
const one = math.MaxUint16

// weights are those of the stretches; their sum is 1.
type weights [stretchesOfLag]float32

func (l *lag) weights() (w weights) {
	for i := range w {
		w[i] = float32(l.weight[i]) / one
	}
	return w
}

// keep stores weights of any sum.
func (l *lag) keep(w *weights) {
	var sum float32
	for _, v := range w {
		sum += v
	}
	for i, v := range w {
		l.weight[i] = uint16(v/sum*one + 0.5)
	}
}

func (l *lag) known() bool { return l.width > 0 }

// early is near the smallest lag, in seconds.
func (l *lag) early() float64 { return l.from + float64(l.first)*float64(l.width) }

func (l *lag) to() float64 { return l.from + stretchesOfLag*float64(l.width) }

// saw learns from a fix that appeared between low and high seconds after its own time. usual is the
// lag of a device with the right time.
func (l *lag) saw(low, high, usual float64) {
	switch {
	case !l.known(), high <= l.from:
		l.restart(low, high, usual)
		return
	case low >= l.to()+far:
		// A buffer sent after an outage, or a clock set back: only the latter stays so.
		if l.strikes++; l.strikes >= 3 {
			l.restart(low, high, usual)
		}
		return
	}
	l.strikes = 0
	if low > l.before()-2*float64(l.width) {
		l.unseen = 0
	} else if l.unseen < 255 {
		l.unseen++
	}
	for low >= l.to() {
		l.widen(0)
	}
	l.shift(low, high)
	l.zoom()
}

// before is well before anything is expected.
func (l *lag) before() float64 { return l.from - stretchesOfLag*float64(l.width) }

// doubtful reports whether it is time for a poll before anything is expected: if every poll comes after
// the fix, the clock of the device may be far ahead without showing.
func (l *lag) doubtful() bool { return l.unseen >= 24 }

// restart spreads the weight evenly between the bounds, but most of it around the usual lag if that
// lies between them.
func (l *lag) restart(low, high, usual float64) {
	low = max(low, high-600)
	width := max((high-low)/(stretchesOfLag-2), narrowest)
	*l = lag{from: high - (stretchesOfLag-1)*width, width: float32(width)}
	var w weights
	for i := range w {
		w[i] = 1
		begin := l.from + float64(i)*width
		if i == 0 || i == stretchesOfLag-1 {
			w[i] = 0.1
		}
		if begin <= usual+2 && begin+width > usual-2 {
			w[i] += float32(300 * min(1, width/4))
		}
	}
	l.keep(&w)
	l.zoom()
}

// shift moves weight to the stretches in which the fix may have appeared.
func (l *lag) shift(low, high float64) {
	var post weights
	var sum float32
	w, width := l.weights(), float64(l.width)
	for i := range post {
		begin := l.from + float64(i)*width
		over := min(begin+width, high) - max(begin, low)
		if over > 0 {
			post[i] = w[i] * float32(over/width)
			sum += post[i]
		}
	}
	if sum <= 0 {
		return
	}
	l.fixes = min(l.fixes+1, 254)
	rate := max(forget, 1/(float32(l.fixes)+1.5))
	for i := range w {
		w[i] += rate*(post[i]/sum-w[i]) + trace*(1./stretchesOfLag-w[i])*rate
	}
	l.keep(&w)
}

// zoom halves the stretches while the weight is in less than half of them, and doubles them if it
// crowds at an end.
func (l *lag) zoom() {
	for float64(l.width) > narrowest*1.01 {
		first, last := l.span(0.1)
		if last-first >= stretchesOfLag/2-1 {
			break
		}
		l.narrow((first + last + 1) / 2)
	}
	if w := l.weights(); w[stretchesOfLag-1] > 0.1 {
		l.widen(stretchesOfLag / 4)
	} else if w[0] > 0.1 && l.fixes > 3 {
		l.widen(stretchesOfLag / 2)
	}
}

// span is the first and the last stretch beyond which there is no more than tail in all.
func (l *lag) span(tail float32) (first, last int) {
	w := l.weights()
	sum := w[0]
	for first = 0; first < stretchesOfLag-1 && sum < tail/2; {
		first++
		sum += w[first]
	}
	sum = w[stretchesOfLag-1]
	for last = stretchesOfLag - 1; last > first && sum < tail/2; {
		last--
		sum += w[last]
	}
	return first, last
}

// narrow halves the stretches round the middle one.
func (l *lag) narrow(middle int) {
	old, w := l.weights(), weights{}
	begin := min(max(middle-stretchesOfLag/4, 0), stretchesOfLag/2)
	for i := range w {
		w[i] = old[begin+i/2]
	}
	l.keep(&w)
	l.from += float64(begin) * float64(l.width)
	l.width /= 2
}

// widen doubles the stretches, with so many of the new ones before the old range.
func (l *lag) widen(before int) {
	old, w := l.weights(), weights{}
	for i := range old {
		if j := before + i/2; j < stretchesOfLag {
			w[j] += old[i]
		}
	}
	l.width *= 2
	l.from -= float64(before) * float64(l.width)
	for i := range w {
		w[i] += trace / stretchesOfLag
	}
	l.keep(&w)
}

// middle is the median.
func (l *lag) middle() float64 {
	var sum float32
	for i, w := range l.weights() {
		if sum+w >= 0.5 {
			return l.from + float64(l.width)*(float64(i)+float64((0.5-sum)/max(w, 1e-9)))
		}
		sum += w
	}
	return l.to()
}

// pending reports whether a fix that had not appeared so many seconds after its own time may still be on
// its ordinary way.
func (l *lag) pending(after float64) bool {
	left := 0
	for i := l.stretch(after); i < stretchesOfLag; i++ {
		left += int(l.weight[i])
	}
	return float32(left)/one >= 0.04
}

// stretch is the first that is not over.
func (l *lag) stretch(after float64) int {
	return int(min(max(0, (after-l.from)/float64(l.width)), stretchesOfLag))
}

// moment is the best moment to poll for a fix, in seconds after the fix's own time, given that it
// had not appeared after so many: the one at which the delay of fixes that have appeared and the price of polls that
// come too early add up to the least.
func (l *lag) moment(price, after float64) float64 {
	if l.doubtful() && after < l.before() {
		return l.before()
	}
	w, width := l.weights(), float64(l.width)
	first := min(l.stretch(after), stretchesOfLag-1)
	// cost[i] is the cost still to come, times the chance to get there, once a poll at the end of
	// stretch i-1 was in vain.
	var cost [stretchesOfLag + 1]float64
	best := stretchesOfLag - 1
	cost[stretchesOfLag] = 0
	survive := 0.
	for i := stretchesOfLag - 1; i >= first; i-- {
		survive += float64(w[i])
		cost[i] = -1
		arrived, delay := 0., 0.
		for j := i; j < stretchesOfLag; j++ {
			delay += arrived*width + float64(w[j])*width/2
			arrived += float64(w[j])
			if cost[i] >= 0 && price*survive+delay >= cost[i] {
				break // every later stretch costs more
			}
			c := price*survive + delay + cost[j+1]
			if cost[i] < 0 || c < cost[i] {
				cost[i] = c
				if i == first {
					best = j
				}
			}
		}
	}
	return l.from + width*float64(best+1)
}
