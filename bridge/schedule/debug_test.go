package schedule

import "fmt"

func (a *Adaptive) Debug() (float64, [prices]float64) { return a.market.price, a.market.demand }
func (a *Adaptive) Note(id string) string {
	s, _ := a.roster.find(id)
	d := &a.devices[s]
	return fmt.Sprintf("next %.1f %s m %.1f q %.2f parked %v road %.1f fit %.2f yard %.0f/%.2f %v un %d lag %.1f from %.1f w %.2f %.2f", d.next.seconds(), d.why, a.market.price, d.live(a.typical), d.parked, d.road.period, d.road.fit, d.yard.period, d.yard.fit, d.road.gaps, d.road.unproven, d.mid, d.lag.from, d.lag.width, d.lag.weight)
}

func (a *Adaptive) Class(id string) (kind string, p float64) {
	s, _ := a.roster.find(id)
	d := &a.devices[s]
	q := d.live(a.typical)
	c := d.cadence()
	switch {
	case !d.seen:
		return "unseen", 0
	case q < 0.5:
		return "parked", 0
	case !c.known():
		return "unknown", 0
	case c.fit < .45:
		return "misfit", float64(c.period)
	}
	return "grid", float64(c.period)
}
func (a *Adaptive) Gaps(id string) string {
	s, _ := a.roster.find(id)
	d := &a.devices[s]
	return fmt.Sprint(d.road.gaps, d.road.most, d.road.fit)
}
