package schedule

import (
	"encoding/binary"
	"math"
	"time"

	"plaspy-bridge/bridge/outbound/schedule/forecast"
)

// AppendMemory appends to b what was learnt about a device, about 50 bytes, so that [Schedule.Restore] can go on
// with it after a restart or in another replica. It appends nothing if nothing was learnt, and with a fixed
// interval.
func (s *Schedule) AppendMemory(b []byte, id string) []byte {
	slot, ok := s.slots.find(id)
	if !ok || s.adaptive == nil {
		return b
	}
	return s.adaptive.devices[slot].AppendMemory(b, s.clock.origin())
}

// Restore adds a device with a memory from AppendMemory. Its next poll is planned at once and does not queue for a
// first poll. A memory that cannot be read, and any memory with a fixed interval, makes it [Schedule.Add]; restored
// is then false. A device that was polled already stays as it is.
func (s *Schedule) Restore(now time.Time, id string, memory []byte) (restored bool) {
	t := s.clock.read(now)
	slot, fresh := s.add(id)
	if !fresh && !s.first.waits(slot) {
		return false
	}
	if s.adaptive != nil {
		if d, err := forecast.Recall(memory, s.clock.origin(), t); err == nil {
			s.first.drop(slot)
			s.adaptive.reprice(t)
			s.adaptive.devices[slot] = device{Device: d, from: t}
			u := &s.turns[slot]
			u.asked = d.Polled()
			s.set(t, slot, s.adaptive.planFrom(d.Polled(), slot, u))
			return true
		}
	}
	if fresh {
		s.first.add(t, slot)
	}
	return false
}

// AppendFleetMemory appends to b what was learnt about the fleet as a whole, some 260 bytes. It appends nothing with a
// fixed interval.
func (s *Schedule) AppendFleetMemory(b []byte) []byte {
	if s.adaptive == nil {
		return b
	}
	b = s.adaptive.fleet.AppendMemory(b)
	return binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(s.adaptive.market.price)))
}

// RestoreFleet replaces what was learnt about the fleet by a memory from AppendFleetMemory, and reports whether it could
// be read. It should be called before the devices are restored.
func (s *Schedule) RestoreFleet(memory []byte) bool {
	const priceSize = 4
	n := len(memory) - priceSize
	if s.adaptive == nil || n < 0 || s.adaptive.fleet.Recall(memory[:n]) != nil {
		return false
	}
	price := float64(math.Float32frombits(binary.LittleEndian.Uint32(memory[n:])))
	if price > 0 && price <= highestPrice {
		s.adaptive.market.recalled = price
	}
	return true
}
