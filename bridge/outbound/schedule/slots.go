package schedule

// slots gives each device a slot: a small number under which the schedule and its planner keep their
// knowledge in slices, without pointers for the garbage collector to follow or allocations per poll.
type slots struct {
	byID  map[string]int32
	names []string
	state []presence
	free  []int32
	here  int
}

// presence is the state of a slot.
type presence struct {
	out  bool // a poll is under way
	gone bool // removed while out; the slot is kept until Done
	soon bool // asked for while out
}

func newSlots() slots { return slots{byID: make(map[string]int32)} }

// add returns the device's slot and whether it is new there. A device that was removed while out and is
// not back yet keeps its slot, so it never has two polls under way.
func (s *slots) add(id string) (slot int32, fresh bool) {
	if slot, ok := s.byID[id]; ok {
		if s.state[slot].gone {
			s.state[slot].gone = false
			s.here++
		}
		return slot, false
	}
	s.here++
	if n := len(s.free); n > 0 {
		slot, s.free = s.free[n-1], s.free[:n-1]
		s.names[slot], s.state[slot] = id, presence{}
	} else {
		slot = int32(len(s.names))
		s.names, s.state = append(s.names, id), append(s.state, presence{})
	}
	s.byID[id] = slot
	return slot, true
}

// remove takes the device out. freed reports that its slot is free at once, because the device is not
// out.
func (s *slots) remove(id string) (slot int32, freed bool) {
	slot, ok := s.byID[id]
	if !ok || s.state[slot].gone {
		return 0, false
	}
	s.here--
	if s.state[slot].out {
		s.state[slot].gone = true
		return slot, false
	}
	s.release(slot)
	return slot, true
}

func (s *slots) release(slot int32) {
	delete(s.byID, s.names[slot])
	s.names[slot] = ""
	s.free = append(s.free, slot)
}

// back ends the poll under way. soon reports whether Soon was called while the device was out. ok is false if
// there is no poll, or if the device was removed in the meantime.
func (s *slots) back(id string) (slot int32, soon, ok bool) {
	slot, known := s.byID[id]
	if !known || !s.state[slot].out {
		return 0, false, false
	}
	s.state[slot].out = false
	if s.state[slot].gone {
		s.release(slot)
		return 0, false, false
	}
	return slot, s.state[slot].soon, true
}

// find returns the slot of a device that is in the schedule.
func (s *slots) find(id string) (slot int32, ok bool) {
	slot, ok = s.byID[id]
	return slot, ok && !s.state[slot].gone
}

// pages holds a value for each slot. It grows by a page at a time, so that no call has to copy the values of
// all devices.
type pages[T any] []*[pageSize]T

const pageSize = 512 // of which the runtime rounds none up

// make returns the place of a slot's value, which exists from then on.
func (p *pages[T]) make(slot int32) *T {
	for int(slot)/pageSize >= len(*p) {
		*p = append(*p, new([pageSize]T))
	}
	return p.at(slot)
}

// at returns the place of a slot's value.
func (p pages[T]) at(slot int32) *T { return &p[slot/pageSize][slot%pageSize] }
