package harness

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Minute is the most that was sent in any one.
type Minute struct {
	From     time.Time
	Requests int
	ByBridge map[int]int
}

// String tells who sent how many.
func (m Minute) String() string {
	var parts []string
	for _, bridge := range slices.Sorted(maps.Keys(m.ByBridge)) {
		parts = append(parts, fmt.Sprintf("bridge %d %d", bridge, m.ByBridge[bridge]))
	}
	return fmt.Sprintf("%d requests in the minute from %s: %s", m.Requests, m.From.Format(time.StampMilli), strings.Join(parts, ", "))
}

// Busiest finds the 60 seconds that hold the most requests, wherever they begin.
// A request exactly 60 seconds after another is not in one minute with it. The
// requests are in the order of their time.
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

// Ahead tells by how many requests all bridges together were ahead of an even
// pace of so many a minute, at the worst: the most, over all spans of time, of
// the requests in it less what the pace allows. The requests are in the order of
// their time.
func Ahead(requests []Request, perMinute int) float64 {
	worst, least := 0.0, 0.0
	for i, r := range requests {
		due := r.At.Sub(requests[0].At).Minutes() * float64(perMinute)
		least = min(least, float64(i)-due) // the span may begin with this one
		worst = max(worst, float64(i+1)-due-least)
	}
	return worst
}
