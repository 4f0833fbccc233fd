package judge

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Request is one request that the API received, with any outcome.
type Request struct {
	At     time.Time
	Bridge int // its index in the rig
	Life   int // of that bridge
}

// Minute is the 60 seconds with the most requests.
type Minute struct {
	From     time.Time
	Requests int
	ByBridge map[int]int
}

// String returns how many requests each bridge sent.
func (m Minute) String() string {
	var parts []string
	for _, bridge := range slices.Sorted(maps.Keys(m.ByBridge)) {
		parts = append(parts, fmt.Sprintf("bridge %d %d", bridge, m.ByBridge[bridge]))
	}
	return fmt.Sprintf("%d requests in the minute from %s: %s", m.Requests, m.From.Format(time.StampMilli), strings.Join(parts, ", "))
}

// Busiest finds the 60 seconds with the most requests, at any offset. Two requests that
// are exactly 60 seconds apart are not in the same minute. The requests are in the order
// of their time.
func Busiest(requests []Request) Minute {
	var m Minute
	first := 0
	at := 0
	for i, r := range requests {
		for r.At.Sub(requests[first].At) >= time.Minute {
			first++
		}
		if n := i - first + 1; n > m.Requests {
			m.Requests, at = n, first
		}
	}
	if m.Requests == 0 {
		return m
	}
	m.From, m.ByBridge = requests[at].At, map[int]int{}
	for _, r := range requests[at : at+m.Requests] {
		m.ByBridge[r.Bridge]++
	}
	return m
}

// Ahead returns by how many requests all bridges together exceeded an even pace of
// perMinute at the worst: the maximum over all spans of time of the requests in the span
// minus those that the pace allows. The requests are in the order of their time.
func Ahead(requests []Request, perMinute int) float64 {
	worst, least := 0.0, 0.0
	for i, r := range requests {
		due := r.At.Sub(requests[0].At).Minutes() * float64(perMinute)
		least = min(least, float64(i)-due) // the span may begin with this one
		worst = max(worst, float64(i+1)-due-least)
	}
	return worst
}

// AddRequests adds the requests of all bridges, in the order of their time, and compares
// them with a limit per minute. A limit of 0 is not checked.
func (r *Report) AddRequests(requests []Request, limit int) {
	busiest := Busiest(requests)
	r.Busiest, r.Limit = busiest.Requests, limit
	if limit == 0 {
		return
	}
	r.Ahead = int(Ahead(requests, limit))
	if busiest.Requests > limit {
		r.Problems = append(r.Problems, fmt.Sprintf("%s; %d are allowed", busiest, limit))
	}
	if r.Ahead > max(limit/10, 2) {
		r.Problems = append(r.Problems, fmt.Sprintf("%d requests ahead of the even pace of %d a minute; a tenth is allowed", r.Ahead, limit))
	}
}
