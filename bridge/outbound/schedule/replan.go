package schedule

import (
	"math"
	"time"
)

// account adds what the device would have cost at each price since its last answer.
func (a *Adaptive) account(d *device, t tick) {
	if a.rate == 0 || !d.seen {
		return
	}
	o := a.outlook(d, d.polled)
	a.market.add(t, (t - d.polled).seconds(), a.lap().Seconds(), a.most(d, t).Seconds(), &o)
}

// plan decides when the device is polled next.
func (a *Adaptive) plan(slot int32, t tick) {
	d := &a.devices[slot]
	a.count(d, d.parked && d.drives(t))
	longest := a.most(d, t).Seconds()
	longest -= min(a.behind, longest/2)
	wait, early := longest, longest
	switch {
	case d.failures > 0:
		wait = max(1, a.lap().Seconds()/10) * float64(d.failures)
		early, d.why = wait, ReasonBackoff
	case !d.seen:
		d.why = ReasonLongest
	default:
		o := a.outlook(d, t)
		wait, d.why = a.moment(d, &o, t, a.market.price*a.dither(d, slot), longest)
		var what Reason
		early, what = a.moment(d, &o, t, a.market.price*spareShare, longest)
		d.step = 0
		if what == ReasonDue && o.each > 0 && o.worth > 0.5 {
			d.step = fromSeconds(o.each)
		}
	}
	gap := minGap
	if a.rate == 0 {
		gap = max(gap, a.market.price)
	}
	bound := longest - (t - d.asked).seconds()
	if wait >= bound {
		wait = bound
		if d.failures == 0 {
			d.why = ReasonLongest
		}
	}
	wait = max(wait, gap)
	d.next = t + fromSeconds(wait)
	first := t + fromSeconds(max(min(early, wait), gap))
	if d.notBefore > d.next {
		d.next, d.why = a.comeback(slot, t, d.notBefore), ReasonBackoff
		first = d.next
	}
	a.due.set(slot, d.next)
	a.early.set(slot, max(first, d.notBefore))
}

// dither spreads the price evenly over the octave round it, from poll to poll and from device to
// device. Where many devices have the same period, all of them would take every second fix at one
// price and every third at the next, and neither may fit the rate; so some do the one and some the
// other, as many as the market, which interpolates between prices an octave apart, has reckoned with.
func (a *Adaptive) dither(d *device, slot int32) float64 {
	d.polls++
	u := math.Mod(float64(d.polls)*0.6180339887498949+float64(slot)*0.7548776662466927, 1)
	return math.Exp2(u - 0.5)
}

// comeback is when a device that is left alone until then is polled: soon after, spread over as much
// as a quarter of the wait, so that a fleet whose quotas end at midnight does not come back as one.
func (a *Adaptive) comeback(slot int32, t, then tick) tick {
	within := min(a.spread(), time.Duration(then-t)/4)
	share := math.Mod(float64(slot)*0.6180339887498949+float64(a.seed%1024)/1024, 1)
	return then.after(time.Duration(share * float64(within)))
}

// tighten brings plans forward that were made under a longer bound, as while the rate was throttled: a
// wait of two laps at a few requests an hour must not outlive those. It goes through all devices, and
// so waits until the bound has shrunk by a fifth.
func (a *Adaptive) tighten() {
	longest := tick(a.longest())
	if longest >= a.bound-a.bound/5 {
		a.bound = max(a.bound, longest)
		return
	}
	a.bound = longest
	for slot := range a.devices {
		d := &a.devices[slot]
		most := max(d.asked.after(a.most(d, d.polled)), d.notBefore)
		if due, ok := a.due.due(int32(slot)); ok && due > most {
			d.next, d.why = most, ReasonLongest
			a.due.set(int32(slot), most)
		}
	}
}
