package schedule

// roster gives each device under care a slot, a small number under which the policies keep what they
// know of it in slices: no pointers for the garbage collector to follow, and no allocation per poll.
type roster struct {
	slots map[string]int32
	names []string
	state []presence
	free  []int32
	here  int
}

// presence is what the roster knows of a slot.
type presence struct {
	out  bool // a poll is under way
	gone bool // removed while out; the slot is kept until Done
	soon bool // asked for while out
}

func newRoster() roster { return roster{slots: make(map[string]int32)} }

// add returns the device's slot and whether it is new there. One that was removed while out and has
// not come back yet keeps its slot, so that it never has two polls under way.
func (r *roster) add(id string) (slot int32, fresh bool) {
	if slot, ok := r.slots[id]; ok {
		if r.state[slot].gone {
			r.state[slot].gone = false
			r.here++
		}
		return slot, false
	}
	r.here++
	if n := len(r.free); n > 0 {
		slot, r.free = r.free[n-1], r.free[:n-1]
		r.names[slot], r.state[slot] = id, presence{}
	} else {
		slot = int32(len(r.names))
		r.names, r.state = append(r.names, id), append(r.state, presence{})
	}
	r.slots[id] = slot
	return slot, true
}

// remove takes the device out of care. freed says that its slot is free at once, the device not being
// out.
func (r *roster) remove(id string) (slot int32, freed bool) {
	slot, ok := r.slots[id]
	if !ok || r.state[slot].gone {
		return 0, false
	}
	r.here--
	if r.state[slot].out {
		r.state[slot].gone = true
		return slot, false
	}
	r.release(slot)
	return slot, true
}

func (r *roster) release(slot int32) {
	delete(r.slots, r.names[slot])
	r.names[slot] = ""
	r.free = append(r.free, slot)
}

// back ends the poll under way. ok is false where there was none, or the device has gone meanwhile.
func (r *roster) back(id string) (slot int32, ok bool) {
	slot, known := r.slots[id]
	if !known || !r.state[slot].out {
		return 0, false
	}
	r.state[slot].out = false
	if r.state[slot].gone {
		r.release(slot)
		return 0, false
	}
	return slot, true
}

// find returns the slot of a device under care.
func (r *roster) find(id string) (slot int32, ok bool) {
	slot, ok = r.slots[id]
	return slot, ok && !r.state[slot].gone
}

// askedFor says whether Soon was called while the device was out.
func (r *roster) askedFor(id string) bool {
	slot, ok := r.slots[id]
	return ok && r.state[slot].out && r.state[slot].soon
}
