package plaspy

import "time"

// SetLimit replaces the limit that [NewBudget] was given, in requests per minute; 0 means no limit. Requests that
// were sent under a higher limit still count.
func (b *Budget) SetLimit(perMinute int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.settle(now)
	perMinute = max(perMinute, 0)
	if perMinute == b.limit {
		return
	}
	b.limit = perMinute
	braked := b.brake.until.After(now) || b.brake.factorAt(now) < 1
	if perMinute == 0 && braked && b.brake.observed == 0 {
		b.brake.observed = b.meter.perMinute(now)
	}
	free := perMinute == 0 && !braked
	if b.free.Swap(free) && !free {
		b.slot = now // nothing was counted until now
	}
	b.dispatch(now)
}
