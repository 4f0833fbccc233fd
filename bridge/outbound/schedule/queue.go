package schedule

import "time"

// queue is a heap of slots by due time, first come first served among equals, in which each slot is
// at most once and can be moved or taken out.
type queue struct {
	heap  []entry
	place []int32 // by slot: index in heap plus one, 0 if it is not in
	seq   uint32
}

type entry struct {
	due  tick
	seq  uint32 // of the calls of set, and may wrap around
	slot int32
}

func (q *queue) len() int { return len(q.heap) }

// top is the earliest due; only if len is not 0.
func (q *queue) top() (slot int32, due tick) { return q.heap[0].slot, q.heap[0].due }

// first is when the top is due.
func (q *queue) first() tick { return q.heap[0].due }

func (q *queue) due(slot int32) (tick, bool) {
	if int(slot) >= len(q.place) || q.place[slot] == 0 {
		return 0, false
	}
	return q.heap[q.place[slot]-1].due, true
}

// set puts the slot in, or moves it.
func (q *queue) set(slot int32, due tick) {
	for int(slot) >= len(q.place) {
		q.place = append(q.place, 0)
	}
	q.seq++
	e := entry{due: due, seq: q.seq, slot: slot}
	i := int(q.place[slot]) - 1
	if i < 0 {
		i = len(q.heap)
		q.heap = append(q.heap, e)
	}
	q.settle(i, e)
}

func (q *queue) drop(slot int32) {
	if int(slot) >= len(q.place) || q.place[slot] == 0 {
		return
	}
	i, last := int(q.place[slot])-1, len(q.heap)-1
	e := q.heap[last]
	q.heap = q.heap[:last]
	q.place[slot] = 0
	if i < last {
		q.settle(i, e)
	}
}

// settle writes e at i or wherever it belongs above or below.
func (q *queue) settle(i int, e entry) {
	for i > 0 {
		up := (i - 1) / 2
		if !e.before(q.heap[up]) {
			break
		}
		q.write(i, q.heap[up])
		i = up
	}
	for {
		down := 2*i + 1
		if down >= len(q.heap) {
			break
		}
		if right := down + 1; right < len(q.heap) && q.heap[right].before(q.heap[down]) {
			down = right
		}
		if !q.heap[down].before(e) {
			break
		}
		q.write(i, q.heap[down])
		i = down
	}
	q.write(i, e)
}

func (q *queue) write(i int, e entry) {
	q.heap[i] = e
	q.place[e.slot] = int32(i) + 1
}

func (e entry) before(f entry) bool {
	if e.due != f.due {
		return e.due < f.due
	}
	return int32(e.seq-f.seq) < 0
}

// firstPolls spreads first polls: devices wait in line and one is let in each gap. The gap is the time of the spread
// over the number of devices in this episode. It is worked out again each time, so it does not matter whether
// the devices come one by one, with polls in between, or all at once, nor that the rate changes meanwhile.
type firstPolls struct {
	line    []int32 // slots; those that left are -1
	place   []int32 // by slot: index in line plus one, 0 if it does not wait
	head    int
	left    int  // entries of line from head on that are -1
	episode int  // devices that came since the line was last empty
	since   tick // when the first of them came
	let     tick // when the last one was let in, by plan
	any     bool // one was let in before
}

func (f *firstPolls) add(t tick, slot int32) {
	if f.waiting() == 0 {
		f.episode, f.since = 0, t
	}
	for int(slot) >= len(f.place) {
		f.place = append(f.place, 0)
	}
	f.episode++
	f.line = append(f.line, slot)
	f.place[slot] = int32(len(f.line))
}

func (f *firstPolls) waiting() int { return len(f.line) - f.head - f.left }

// waits reports whether the device waits for its first poll.
func (f *firstPolls) waits(slot int32) bool { return int(slot) < len(f.place) && f.place[slot] != 0 }

// drop takes a device out of the line and reports whether it was there.
func (f *firstPolls) drop(slot int32) bool {
	if !f.waits(slot) {
		return false
	}
	f.line[f.place[slot]-1] = -1
	f.place[slot] = 0
	f.left++
	f.episode--
	f.release()
	return true
}

// release gives the memory of a line without devices back.
func (f *firstPolls) release() {
	if f.waiting() == 0 {
		f.line, f.place, f.head, f.left = nil, nil, 0, 0
	}
}

// next is when the device at the head may be polled; only if waiting is not 0. The first one of an episode
// keeps the distance that all of them would, spread over all devices in the schedule.
func (f *firstPolls) next(spread time.Duration, all int) tick {
	if !f.any {
		return f.since
	}
	// At most half the rate goes to a few first polls: devices that were taken over have waited already.
	gap := min(spread/time.Duration(max(1, f.episode)), 2*spread/time.Duration(max(1, all)))
	if f.waiting() == f.episode {
		gap = spread / time.Duration(max(1, all))
	}
	return max(f.since, f.let.After(gap))
}

// take lets in the device at the head, which was due at the given moment.
func (f *firstPolls) take(due tick) int32 {
	for f.line[f.head] < 0 {
		f.head++
		f.left--
	}
	slot := f.line[f.head]
	f.head++
	f.place[slot] = 0
	f.let, f.any = due, true
	f.release()
	return slot
}
