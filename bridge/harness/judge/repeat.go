package judge

import (
	"fmt"
	"slices"
	"time"

	"plaspy-bridge/bridge/harness/timeline"
)

// inboundLease is how long a bridge that cannot renew its lease continues to post.
const inboundLease = 4500 * time.Millisecond

// restored reports whether a message was posted again because the broker was away after
// it had acknowledged the message's removal, and then held the message again.
func (c *InboundCase) restored(seq uint64, first, second Posting) bool {
	for _, removed := range c.Removed[seq/spread] {
		forgotten := func(s timeline.Span) bool { return s.From.After(removed) && s.From.Before(second.At) }
		if removed.After(first.At) && slices.ContainsFunc(c.Away, forgotten) {
			return true
		}
	}
	return false
}

// unflushed is how long before its end a server may acknowledge a message and not have
// written it.
const unflushed = time.Second

// explain returns why the promises do not allow a second post of a message. It returns ""
// if they do, because the bridge did not learn of the first post or ended before it could
// record it. woken reports that the second post was suspended with its process while
// another bridge posted the message. It may then be out of order, because its process
// cannot know the later posts.
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
		if slices.ContainsFunc(c.Away, func(s timeline.Span) bool { return s.From.After(first.At) && s.From.Sub(first.At) <= unflushed }) {
			return "", woken
		}
		return fmt.Sprintf("more than the %d posts that were under way", c.Workers), false
	}
	return "", woken
}

// event finds the fault of the life of one of two posts that explains the second one.
func (c *InboundCase) event(first, second Posting) (event pause, woken, ok bool) {
	life := c.life(first)
	other := first.Life != second.Life
	if life == nil {
		return pause{}, false, false
	}
	if other && diesAfter(life, first.At, c.Grace, c.Away) {
		return pause{first.Life, life.To}, false, true
	}
	idle, long := life.Pauses, c.Timeout/2 // by then the request has timed out
	if other {
		// Without the broker the lease is not renewed, so that the other bridge gets it.
		idle, long = slices.Concat(life.Pauses, life.Cuts, c.Away), inboundLease
	}
	for _, s := range idle {
		end := s.To
		if end.IsZero() || end.After(second.At) {
			end = second.At
		}
		if end.Sub(s.From) >= long && first.At.Sub(end) <= c.Grace && timeline.Uncovered(first.At, s.From, healing(c.Away)) <= c.Grace {
			return pause{first.Life, s.From}, false, true
		}
	}
	if late := c.life(second); other && late != nil {
		for _, s := range late.Pauses {
			if s.Covers(first.At) && !s.To.IsZero() && second.At.Sub(s.To) <= c.Grace {
				return pause{second.Life, s.From}, true, true
			}
		}
	}
	return pause{}, false, false
}

// life returns the life that sent a post, or nil if it is unknown.
func (c *InboundCase) life(p Posting) *timeline.Life {
	if p.Life < 0 || p.Life >= len(c.Lives) {
		return nil
	}
	return &c.Lives[p.Life]
}

// near describes the life of a post and its faults around that time.
func (c *InboundCase) near(p Posting) string {
	life := c.life(p)
	if life == nil {
		return ""
	}
	return fmt.Sprintf("\n    life %d, %s", p.Life, near(life, p.At, c.Away))
}
