package sim

import (
	"maps"
	"sync"
	"time"

	"plaspy-bridge/bridge/sim/route"
	"plaspy-bridge/bridge/sim/token"
)

// Counts are the server's counters since it was made.
type Counts struct {
	Requests int64 `json:"requests"` // all of them: refused, throttled and aborted ones too
	// Answers are the requests by endpoint and status. Status 0 is a request
	// that was aborted: its connection was reset or its client left.
	Answers map[string]map[int]int64 `json:"answers"`
	// MaxPerMinute is the most requests of any 60 seconds, all of them
	// counted when they arrived; one exactly 60 seconds old counts no more.
	MaxPerMinute int `json:"maxPerMinute"`
	// MaxPolls and MaxPosts are the most GETs and POSTs that were under way
	// at once for any one device. A request whose client has left is under
	// way until the server notices.
	MaxPolls int `json:"maxPolls"`
	MaxPosts int `json:"maxPosts"`

	Tokens token.Counts `json:"tokens"`
	// Accepted are the posts answered with success by the API itself, by
	// device; one repeated under a known Idempotency-Key does not count.
	Accepted map[string]int64 `json:"accepted"`
}

const minute = int64(time.Minute)

// ledger counts requests. Its lock is held for nanoseconds.
type ledger struct {
	mu       sync.Mutex
	seq      uint64
	answers  [route.Count]map[int]int64
	window   window
	limit    limiter
	maxPolls int
	maxPosts int
	skew     time.Duration // Options.Skew
	day      int64         // since the epoch, UTC, of the API's clock
	results  int64         // on that day
}

// begin records a request's arrival and returns how long it should have waited. 0
// lets it pass.
func (l *ledger) begin(c *call) (wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.at = time.Now() // under the lock, so that the order of times is that of seq
	l.seq++
	c.seq = l.seq
	now := c.at.UnixNano()
	l.window.add(now)
	if c.device != nil {
		most := &l.maxPolls
		if c.endpoint.Stores() {
			most = &l.maxPosts
		}
		*most = max(*most, c.device.Begin(c.endpoint.Stores()))
	}
	return l.limit.admit(now)
}

// end records the status of a request, 0 if it was aborted.
func (l *ledger) end(c *call, status int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.device != nil {
		c.device.End(c.endpoint.Stores())
	}
	if l.answers[c.endpoint] == nil {
		l.answers[c.endpoint] = map[int]int64{}
	}
	l.answers[c.endpoint][status]++
}

// used adds to today's results of the account and returns their number.
func (l *ledger) used(results int) int64 {
	today := time.Now().Add(l.skew).Unix() / 86400
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.day != today {
		l.day, l.results = today, 0
	}
	l.results += int64(results)
	return l.results
}

// counts returns a copy of the ledger's counters.
func (l *ledger) counts() Counts {
	c := Counts{Answers: map[string]map[int]int64{}}
	l.mu.Lock()
	defer l.mu.Unlock()
	c.Requests = int64(l.seq)
	c.MaxPerMinute, c.MaxPolls, c.MaxPosts = l.window.peak, l.maxPolls, l.maxPosts
	for e, codes := range l.answers {
		if len(codes) == 0 {
			continue
		}
		c.Answers[route.Endpoint(e).String()] = maps.Clone(codes)
	}
	return c
}

// window holds the times of the last minute's requests, in a ring.
type window struct {
	times []int64
	head  int // the oldest
	n     int
	peak  int
}

func (w *window) add(now int64) {
	for w.n > 0 && w.times[w.head] <= now-minute {
		w.head = (w.head + 1) % len(w.times)
		w.n--
	}
	if w.n == len(w.times) {
		bigger := make([]int64, max(64, 2*w.n))
		k := copy(bigger, w.times[w.head:])
		copy(bigger[k:], w.times[:w.head])
		w.times, w.head = bigger, 0
	}
	w.times[(w.head+w.n)%len(w.times)] = now
	w.n++
	w.peak = max(w.peak, w.n)
}

// limiter admits a number of requests in any minute. Those that it refuses do
// not count against the limit.
type limiter struct {
	passed []int64 // times of the last admitted ones, a ring
	next   int     // the oldest of them
}

func (l *limiter) size(perMinute int) {
	if perMinute > 0 {
		l.passed = make([]int64, perMinute)
		for i := range l.passed {
			l.passed[i] = -1 << 62
		}
	}
}

func (l *limiter) admit(now int64) (wait time.Duration) {
	if l.passed == nil {
		return 0
	}
	if since := now - l.passed[l.next]; since < minute {
		return time.Duration(minute - since)
	}
	l.passed[l.next] = now
	l.next = (l.next + 1) % len(l.passed)
	return 0
}
