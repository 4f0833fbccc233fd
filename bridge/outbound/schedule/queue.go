package schedule

// queue is a heap of slots by due time, first come first served among equals, in which each slot is
// at most once and can be moved or taken out.
type queue struct {
	heap  []entry
	place []int32 // by slot: index in heap plus one, 0 where it is not in
	seq   uint64
}

type entry struct {
	due  tick
	seq  uint64
	slot int32
}

func (q *queue) len() int { return len(q.heap) }

// top is the earliest due; only where len is not 0.
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
	return e.seq < f.seq
}
