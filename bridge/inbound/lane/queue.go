package lane

import (
	"container/heap"
	"time"
)

// queue is first in, first out, except for lanes that are pushed to its front.
type queue struct {
	front []*lane // the last one is first
	list  []*lane
}

func (q *queue) len() int { return len(q.front) + len(q.list) }

func (q *queue) push(n *lane, front bool) {
	if front {
		q.front = append(q.front, n)
	} else {
		q.list = append(q.list, n)
	}
}

func (q *queue) pop() *lane {
	if last := len(q.front) - 1; last >= 0 {
		n := q.front[last]
		q.front[last] = nil
		q.front = q.front[:last]
		return n
	}
	if len(q.list) == 0 {
		return nil
	}
	n := q.list[0]
	q.list[0] = nil
	q.list = q.list[1:]
	return n
}

// parks are the queues of lanes that wait for the API: with a first message that was not
// tried yet, and with one that failed.
type parks [2]queue

// len returns the number of lanes in the first queues.
func (p *parks) len(queues int) (n int) {
	for i := range queues {
		n += p[i].len()
	}
	return n
}

// next takes the lane of the first queues that has waited longest. A message that was not
// tried comes before all that failed: if the trouble is with some devices only, its answer
// shows that.
func (p *parks) next(t *timers, queues int) *lane {
	for i := range queues {
		for n := p[i].pop(); n != nil; n = p[i].pop() {
			if n.state == parked {
				t.remove(n)
				return n
			}
		}
	}
	return nil
}

// timers are the lanes that wait for a time, the earliest first.
type timers struct{ lanes byTime }

func (t *timers) add(n *lane) { heap.Push(&t.lanes, n) }

func (t *timers) remove(n *lane) {
	if n.index >= 0 {
		heap.Remove(&t.lanes, n.index)
	}
}

// due takes a lane that is due, nil if there is none.
func (t *timers) due(now time.Time) *lane {
	if len(t.lanes) == 0 || t.lanes[0].wakes.After(now) {
		return nil
	}
	return heap.Pop(&t.lanes).(*lane)
}

// first returns the earliest time, the zero time if no lane waits.
func (t *timers) first() time.Time {
	if len(t.lanes) == 0 {
		return time.Time{}
	}
	return t.lanes[0].wakes
}

// of returns the lanes that wait for a cause.
func (t *timers) of(why Cause) []*lane {
	var list []*lane
	for _, n := range t.lanes {
		if n.state == waiting && n.cause == why && n.head != nil && n.head.verdict == nil {
			list = append(list, n)
		}
	}
	return list
}

// byTime implements [heap.Interface].
type byTime []*lane

func (b byTime) Len() int           { return len(b) }
func (b byTime) Less(i, j int) bool { return b[i].wakes.Before(b[j].wakes) }

func (b byTime) Swap(i, j int) {
	b[i], b[j] = b[j], b[i]
	b[i].index, b[j].index = i, j
}

// Push appends a lane.
func (b *byTime) Push(x any) {
	n := x.(*lane)
	n.index = len(*b)
	*b = append(*b, n)
}

// Pop removes the last lane.
func (b *byTime) Pop() any {
	last := len(*b) - 1
	n := (*b)[last]
	(*b)[last] = nil
	*b = (*b)[:last]
	n.index = -1
	return n
}
