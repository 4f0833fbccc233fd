package lane

// Status is a snapshot of the lanes.
type Status struct {
	InMemory int // messages in memory
	Bytes    int // of them
	Lanes    int
	Known    int // messages in memory, or left to the stream by a lane
	Waiting  int // lanes that wait after a failure
	Parked   int // lanes that wait for the API to come back
}

// Status returns a snapshot.
func (l *Lanes) Status() Status {
	s := Status{InMemory: l.memory.messages, Bytes: l.memory.bytes, Lanes: len(l.lanes), Waiting: len(l.timers.lanes)}
	for _, n := range l.lanes {
		if s.Known += len(n.rest) + n.left; n.head != nil {
			s.Known++
		}
		if n.state == parked {
			s.Parked++
		}
	}
	s.Waiting -= s.Parked
	return s
}

// unseen is the number of messages in the stream that Backlog counts at most for each
// ready one in memory: a failing device may have any number that wait for it alone.
const unseen = 4

// Backlog estimates how many of the pending messages of the stream could be posted now:
// all except those of lanes that wait.
func (l *Lanes) Backlog(pending int) int {
	ready := 0
	for _, n := range l.lanes {
		known := len(n.rest)
		if n.head != nil {
			known++
		}
		if n.state == queued || n.state == busy {
			ready += known
		} else {
			pending -= known + n.left
		}
	}
	return max(ready, min(pending, unseen*ready))
}

// Each calls f with the first message of each lane, as far as they are known.
func (l *Lanes) Each(f func(*Message)) {
	for _, n := range l.lanes {
		if n.head != nil {
			f(n.head)
		}
	}
}

// Ready reports whether lanes wait for nothing but a worker.
func (l *Lanes) Ready() bool {
	return l.results.len()+l.letters.len()+l.fresh.len()+l.retries.len() > 0
}
