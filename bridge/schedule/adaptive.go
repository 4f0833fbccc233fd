package schedule

import (
	"fmt"
	"math"
	"time"
)

var _ Policy = (*Adaptive)(nil)

// AdaptiveOptions are the settings of Adaptive.
type AdaptiveOptions struct {
	Interval        time.Duration
	TripStartWeight float64
	Seed            uint64
}

// Adaptive learns the devices' rhythms.
type Adaptive struct {
	interval time.Duration
	weight   float64
	seed     uint64
	rate     float64

	clock   clock
	roster  roster
	intake  intake
	devices []device
	due     queue // by planned poll
	early   queue // by the moment from which a spare request is well spent
	asked   queue

	hazard  *hazard
	typical float64
	usual   float64
	market  market
}

func NewAdaptive(o AdaptiveOptions) *Adaptive {
	a := &Adaptive{interval: max(o.Interval, time.Millisecond), weight: o.TripStartWeight, seed: o.Seed, roster: newRoster(), hazard: newHazard(), typical: 40, usual: 3}
	if !(a.weight >= 1) {
		a.weight = 1
	}
	return a
}

func (a *Adaptive) lap() time.Duration { return lap(a.roster.here, a.rate) }

func (a *Adaptive) longest() time.Duration {
	l := a.lap()
	return max(min(a.interval, 4*l), 2*l)
}

func (a *Adaptive) SetRate(now time.Time, perMinute float64) {
	t := a.clock.read(now)
	a.rate = limit(perMinute)
	a.reprice(t)
}

func (a *Adaptive) reprice(t tick) {
	switch {
	case a.rate == 0:
		a.market.price = min(1, max(0.05, a.interval.Seconds()/100))
	case a.market.filled < 0.5:
		a.market.price = a.lap().Seconds() / 10
	default:
		a.market.settle(a.rate / 60 * Rho)
	}
	a.market.last = t
}

var Rho = 0.97

func (a *Adaptive) Add(now time.Time, id string) {
	t := a.clock.read(now)
	slot, fresh := a.roster.add(id)
	if !fresh {
		return
	}
	if int(slot) == len(a.devices) {
		a.devices = append(a.devices, device{})
	}
	a.devices[slot] = device{signs: priorLiveness, bin: -1, turn: uint8(uint64(slot) + a.seed)}
	a.intake.add(t, slot)
}

func (a *Adaptive) Remove(now time.Time, id string) {
	a.clock.read(now)
	slot, freed := a.roster.remove(id)
	if !freed || a.intake.drop(slot) {
		return
	}
	a.due.drop(slot)
	a.early.drop(slot)
	a.asked.drop(slot)
}

func (a *Adaptive) spread() time.Duration {
	if a.rate > 0 {
		return a.lap()
	}
	return a.interval
}

func (a *Adaptive) Next(now time.Time) (string, bool, time.Time) {
	t := a.clock.read(now)
	if (t - a.market.last).seconds() > min(5, max(1, a.lap().Seconds()/20)) {
		a.reprice(t)
	}
	if a.asked.len() > 0 {
		if slot, due := a.asked.top(); due <= t {
			return a.take(t, slot), true, time.Time{}
		}
	}
	due := never
	first := false
	if a.due.len() > 0 {
		_, due = a.due.top()
	}
	if a.intake.waiting() > 0 {
		if n := a.intake.next(a.spread(), a.roster.here); n < due {
			due, first = n, true
		}
	}
	if due <= t {
		if first {
			return a.take(t, a.intake.take(due)), true, time.Time{}
		}
		slot, dd := a.due.top()
		dbgL[a.devices[slot].why] += (t - dd).seconds()
		dbgLN[a.devices[slot].why]++
		return a.take(t, slot), true, time.Time{}
	}
	if a.rate > 0 && a.early.len() > 0 {
		slot, e := a.early.top()
		if e <= t {
			Spare++
			return a.take(t, slot), true, time.Time{}
		}
		due = min(due, e)
	}
	if a.asked.len() > 0 {
		_, e := a.asked.top()
		due = min(due, e)
	}
	if due == never {
		return "", false, time.Time{}
	}
	return "", false, a.clock.wall(now, due)
}

var Spare int

func (a *Adaptive) take(t tick, slot int32) string {
	a.devices[slot].asked = t
	a.due.drop(slot)
	a.early.drop(slot)
	a.asked.drop(slot)
	a.roster.state[slot] = presence{out: true}
	return a.roster.names[slot]
}

func (a *Adaptive) Done(now time.Time, id string, o Observation) {
	t := a.clock.read(now)
	soon := a.roster.askedFor(id)
	slot, ok := a.roster.back(id)
	if !ok {
		return
	}
	d := &a.devices[slot]
	d.notBefore = 0
	if !o.NotBefore.IsZero() {
		d.notBefore = a.clock.at(now, o.NotBefore)
	}
	if o.Failed {
		d.failures = min(d.failures+1, 10)
	} else {
		d.failures = 0
		a.account(d, t)
		a.learn(d, t, o)
		d.polled, d.looked = t, d.asked
		if d.seen && !d.parked && d.lag.known() {
			if c := d.cadence(); c.period > 0 {
				c.looked((d.looked - d.visible()).seconds())
			}
		}
	}
	a.schedule(d, slot, t)
	if soon {
		a.asked.set(slot, max(t, d.notBefore))
	}
}

// account adds the device's demand over the time since the poll before.
func (a *Adaptive) account(d *device, t tick) {
	if a.rate == 0 || !d.seen {
		return
	}
	tau := min(300, max(20, 1*a.lap().Seconds())) // of the running mean
	span := (t - d.polled).seconds()
	o := a.outlook(d, d.polled)
	longest := a.longest().Seconds()
	m := &a.market
	keep := math.Exp(-(t - m.seen).seconds() / tau)
	m.seen = t
	m.filled = m.filled*keep + (1 - keep)
	{
		w, why, _ := o.wait(m.price, longest)
		dbgD[why] += span / max(w, 0.1)
		dbgN[why]++
		dbgS[why] += span
	}
	for i := range prices {
		w, _, _ := o.wait(priceAt(i), longest)
		m.demand[i] = m.demand[i]*keep + span/max(w, 0.1)/tau
	}
}

func (a *Adaptive) schedule(d *device, slot int32, t tick) {
	longest := a.longest().Seconds()
	var w, e float64
	if d.failures > 0 {
		w = min(longest, max(1, a.lap().Seconds()/10)*float64(d.failures))
		e = w
		d.why = ReasonBackoff
	} else if !d.seen {
		w, d.why = longest, ReasonLongest
		e = w
	} else {
		o := a.outlook(d, t)
		d.turn++
		u := math.Mod(float64(d.turn)*0.6180339887+float64(slot)*0.7548776662, 1)
		m := a.market.price * math.Exp((u-0.5)*Dither)
		w, d.why = a.moment(d, &o, t, m, longest)
		e, _ = a.moment(d, &o, t, a.market.price*Phi, longest)
	}
	w = max(w, a.gap())
	e = max(min(e, w), a.gap())
	d.next = max(t+fromSeconds(w), d.notBefore)
	a.due.set(slot, d.next)
	a.early.set(slot, max(t+fromSeconds(e), d.notBefore))
}

var Dither, Phi = 0., .33

func (a *Adaptive) gap() float64 { return 0.1 }

func (a *Adaptive) Soon(now time.Time, id string) {
	t := a.clock.read(now)
	slot, ok := a.roster.find(id)
	if !ok {
		return
	}
	if a.roster.state[slot].out {
		a.roster.state[slot].soon = true
		return
	}
	if _, there := a.asked.due(slot); there {
		return
	}
	a.intake.drop(slot)
	a.asked.set(slot, max(t, a.devices[slot].notBefore))
}

func (a *Adaptive) Explain(now time.Time, id string) Explanation { return Explanation{} }

func (a *Adaptive) Stats(now time.Time) Stats { return Stats{} }

func (a *Adaptive) Len() int { return a.roster.here }

var X1, X2, X3, X4, X5, X6 = 0., 0., 1., .7, 1., 1.

var dbgL, dbgLN, dbgD, dbgN, dbgS [numReasons]float64

func DumpDbg() string {
	s := ""
	for i := range dbgL {
		if dbgLN[i] > 0 {
			s += fmt.Sprintf("LATE %s n %.0f late %.2f; ", Reason(i), dbgLN[i], dbgL[i]/dbgLN[i])
		}
	}
	dbgL, dbgLN = [numReasons]float64{}, [numReasons]float64{}
	for i := range dbgD {
		if dbgN[i] > 0 {
			s += fmt.Sprintf("%s n %.0f demand %.0f span %.1f; ", Reason(i), dbgN[i], dbgD[i], dbgS[i]/dbgN[i])
		}
	}
	dbgD, dbgN, dbgS = [numReasons]float64{}, [numReasons]float64{}, [numReasons]float64{}
	return s
}
