package schedule

import "time"

// intake spreads first polls: devices wait in line and one is let in each gap, the gap being the
// spread over the number in this episode. It is worked out anew each time, so it does not matter
// whether the devices come in one call after another, with polls in between, or all at once, nor that
// the rate changes meanwhile.
type intake struct {
	line    []int32
	head    int
	episode int  // devices that came since the line was last empty
	since   tick // when the first of them came
	let     tick // when the last one was let in, by plan
	any     bool // one was let in before
}

func (in *intake) add(t tick, slot int32) {
	if in.waiting() == 0 {
		in.line, in.head, in.episode, in.since = in.line[:0], 0, 0, t
	}
	in.episode++
	in.line = append(in.line, slot)
}

func (in *intake) waiting() int { return len(in.line) - in.head }

// drop takes a device out of the line. It is linear, but for the few that are removed while they
// wait for their first poll.
func (in *intake) drop(slot int32) bool {
	for i := in.head; i < len(in.line); i++ {
		if in.line[i] == slot {
			in.line = append(in.line[:i], in.line[i+1:]...)
			in.episode--
			return true
		}
	}
	return false
}

// next is when the one at the head may be polled; only where waiting is not 0. The first of an
// episode keeps only the distance that all of them would (spread over all devices under care).
func (in *intake) next(spread time.Duration, all int) tick {
	if !in.any {
		return in.since
	}
	// Half the rate goes to first polls where they are few: who has been taken over has waited already.
	gap := min(spread/time.Duration(max(1, in.episode)), 2*spread/time.Duration(max(1, all)))
	if in.waiting() == in.episode {
		gap = spread / time.Duration(max(1, all))
	}
	return max(in.since, in.let.after(gap))
}

// take lets the one at the head in, whose turn was due.
func (in *intake) take(due tick) int32 {
	slot := in.line[in.head]
	in.head++
	in.let, in.any = due, true
	return slot
}
