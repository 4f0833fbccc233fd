package harness

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Posting is a post that the API accepted.
type Posting struct {
	ID   string
	At   time.Time
	Life int // of the bridge that sent it, an index of InboundCase.Lives
	// Hidden: the API did not tell that it had accepted.
	Hidden bool
}

// InboundCase is what the posts of a run are judged by.
type InboundCase struct {
	Accepted []Accepted
	Posted   map[string][]Posting // by device, in the API's order
	Dead     map[string]bool      // by id
	Results  map[string]int       // by id
	Lives    []Life               // of all bridges
	Away     []Span               // of the broker
	// Removed has the sequences in the stream whose removal the broker acknowledged.
	Removed map[uint64][]time.Time
	// Grace is how long before a kill a post may have come and not be noted
	// down. It is generous: what counts is that they are no more than Workers.
	Grace   time.Duration
	Timeout time.Duration // PLASPY_TIMEOUT
	Workers int           // BRIDGE_INBOUND_WORKERS
}

// inboundLease is how long a bridge that cannot renew it goes on posting.
const inboundLease = 4500 * time.Millisecond

// JudgeInbound compares what the stream accepted with what was posted.
func JudgeInbound(c InboundCase) (r InboundReport, details []string) {
	accepted := slices.Clone(c.Accepted)
	slices.SortFunc(accepted, func(a, b Accepted) int { return cmp.Compare(a.Seq, b.Seq) })
	seq := make(map[string]uint64, len(accepted))
	for _, a := range accepted {
		seq[a.ID] = a.Seq
	}
	posted := map[string]bool{}
	used := map[pause]int{}
	for device, list := range c.Posted {
		latest := map[string]Posting{}
		var newest uint64
		for _, p := range list {
			before, again := latest[p.ID]
			latest[p.ID] = p
			posted[p.ID] = true
			woken := false
			if again {
				r.Repeated++
				var why string
				if c.restored(seq[p.ID], before, p) {
					r.Restored++
					woken = true
				} else {
					why, woken = c.explain(before, p, used)
				}
				if why == "" {
					r.Allowed++
				} else {
					details = append(details, fmt.Sprintf("%s: %s was posted at %s and again at %s: %s%s%s", device, p.ID,
						before.At.Format(stamp), p.At.Format(stamp), why, c.near(before), c.near(p)))
				}
			}
			n, known := seq[p.ID]
			if !known || woken {
				continue // accepted, but its producer was stopped before it knew
			}
			if n < newest {
				r.Reordered++
				details = append(details, fmt.Sprintf("%s: %s was posted after a message that is behind it in the stream", device, p.ID))
			}
			newest = max(newest, n)
		}
	}
	for _, a := range accepted {
		r.Accepted++
		switch {
		case posted[a.ID]:
			r.Posted++
			if c.Results[a.ID] == 0 {
				r.Unreported++
				details = append(details, fmt.Sprintf("%s: %s was posted, and there is no result", a.Device, a.ID))
			}
		case c.Dead[a.ID]:
		default:
			r.Lost++
			details = append(details, fmt.Sprintf("%s: %s, message %d, was neither posted nor dead-lettered", a.Device, a.ID, a.Seq))
		}
		if c.Dead[a.ID] {
			r.Dead++
		}
	}
	for _, n := range c.Results {
		r.Results += n
	}
	return r, details
}

// unflushed is how soon before the end of a server what it acknowledged may not
// have been written yet.
const unflushed = time.Second

// explain tells why a second post of a message is not one that the promises
// allow; "": it is, since the bridge did not learn of the first, or did not live
// to note it down. woken is such a post that stood still with its process while
// another bridge posted the message: what that one has posted since, this one
// cannot know.
func (c *InboundCase) explain(first, second Posting, used map[pause]int) (why string, woken bool) {
	if first.Hidden {
		return "", false
	}
	event, woken, ok := c.event(first, second)
	if !ok {
		return "nothing befell either in the moment after", false
	}
	if used[event]++; used[event] > c.Workers {
		// A server that is killed forgets the last acknowledgements that it gave.
		if slices.ContainsFunc(c.Away, func(s Span) bool { return s.From.After(first.At) && s.From.Sub(first.At) <= unflushed }) {
			return "", woken
		}
		return fmt.Sprintf("more than the %d posts that were under way", c.Workers), false
	}
	return "", woken
}

// event finds what befell the life of one of two posts of a message, by when it
// began.
func (c *InboundCase) event(first, second Posting) (event pause, woken, ok bool) {
	life := c.life(first)
	other := first.Life != second.Life
	if life == nil {
		return pause{}, false, false
	}
	if other && life.diesAfter(first.At, c.Grace, c.Away) {
		return pause{first.Life, life.To}, false, true
	}
	idle, long := life.Pauses, c.Timeout/2 // by then the post is given up unread
	if other {
		// Without the broker no lease is renewed: the other one has it then.
		idle, long = slices.Concat(life.Pauses, life.Cuts, c.Away), inboundLease
	}
	for _, s := range idle {
		end := s.To
		if end.IsZero() || end.After(second.At) {
			end = second.At
		}
		if end.Sub(s.From) >= long && first.At.Sub(end) <= c.Grace && working(first.At, s.From, healing(c.Away)) <= c.Grace {
			return pause{first.Life, s.From}, false, true
		}
	}
	if late := c.life(second); other && late != nil {
		for _, s := range late.Pauses {
			if s.covers(first.At) && !s.To.IsZero() && second.At.Sub(s.To) <= c.Grace {
				return pause{second.Life, s.From}, true, true
			}
		}
	}
	return pause{}, false, false
}

func (c *InboundCase) life(p Posting) *Life {
	if p.Life < 0 || p.Life >= len(c.Lives) {
		return nil
	}
	return &c.Lives[p.Life]
}

// near describes the life of a post, and what befell it about then.
func (c *InboundCase) near(p Posting) string {
	life := c.life(p)
	if life == nil {
		return ""
	}
	return fmt.Sprintf("\n    life %d, %s", p.Life, life.near(p.At, c.Away))
}
