package judge

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"plaspy-bridge/bridge/harness/timeline"
)

// Accepted is an inbound message, or an element of a batch, that the stream acknowledged.
type Accepted struct {
	ID     string // its Nats-Msg-Id, which is also in the post
	Device string
	Seq    uint64 // see [Place]
}

// spread is the distance between the places of two messages. It leaves room for the
// elements of a batch.
const spread = 1 << 16

// Place returns the place of an element of the message with this sequence in the inbound
// stream, for [Accepted.Seq].
func Place(sequence uint64, element int) uint64 { return sequence*spread + uint64(element) }

// Posting is a post that the API accepted.
type Posting struct {
	ID     string
	At     time.Time
	Life   int  // of the bridge that sent it, an index of [InboundCase.Lives]
	Hidden bool // the API did not confirm it
}

// InboundCase has the facts that [Inbound] judges.
type InboundCase struct {
	Accepted []Accepted
	Posted   map[string][]Posting // by device, in the API's order
	Dead     map[string]bool      // by id
	Results  map[string]int       // by id
	Lives    []timeline.Life      // of all bridges
	Away     []timeline.Span      // of the broker
	// Removed has the times at which the broker acknowledged removals, by the sequence of
	// the message in the stream.
	Removed map[uint64][]time.Time
	// Grace is how long before a kill a post may have come and not be recorded. It can be
	// generous, because Workers limits the number of such posts.
	Grace   time.Duration
	Timeout time.Duration // PLASPY_TIMEOUT
	Workers int           // BRIDGE_INBOUND_WORKERS
}

// inboundVerdict collects the report on the inbound messages.
type inboundVerdict struct {
	c       *InboundCase
	r       InboundReport
	details []string
	place   map[string]uint64 // by id of an accepted message
	posted  map[string]bool   // by id
	used    map[pause]int     // number of repetitions that each fault excused
}

// Inbound compares the messages that the stream accepted with the posts.
func Inbound(c InboundCase) (r InboundReport, details []string) {
	accepted := slices.Clone(c.Accepted)
	slices.SortFunc(accepted, func(a, b Accepted) int { return cmp.Compare(a.Seq, b.Seq) })
	v := &inboundVerdict{c: &c, place: make(map[string]uint64, len(accepted)), posted: map[string]bool{}, used: map[pause]int{}}
	for _, a := range accepted {
		v.place[a.ID] = a.Seq
	}
	for device, posts := range c.Posted {
		v.device(device, posts)
	}
	for _, a := range accepted {
		v.outcome(a)
	}
	for _, n := range c.Results {
		v.r.Results += n
	}
	return v.r, v.details
}

func (v *inboundVerdict) say(format string, args ...any) {
	v.details = append(v.details, fmt.Sprintf(format, args...))
}

// device judges the posts of one device: their order, and those that repeat one before.
func (v *inboundVerdict) device(device string, posts []Posting) {
	latest := map[string]Posting{}
	var newest uint64
	for _, p := range posts {
		before, again := latest[p.ID]
		latest[p.ID] = p
		v.posted[p.ID] = true
		late := again && v.repeated(device, before, p)
		place, known := v.place[p.ID]
		if !known || late {
			continue // an unknown one was accepted, but its producer ended before the acknowledgement
		}
		if place < newest {
			v.r.Reordered++
			v.say("%s: %s was posted after a message that is behind it in the stream", device, p.ID)
		}
		newest = max(newest, place)
	}
}

// repeated counts a second post of a message. It reports whether the post may also be
// out of order.
func (v *inboundVerdict) repeated(device string, before, p Posting) (late bool) {
	v.r.Repeated++
	var why string
	if v.c.restored(v.place[p.ID], before, p) {
		v.r.Restored++
		late = true
	} else {
		why, late = v.c.explain(before, p, v.used)
	}
	if why == "" {
		v.r.Allowed++
		return late
	}
	v.say("%s: %s was posted at %s and again at %s: %s%s%s", device, p.ID,
		before.At.Format(stamp), p.At.Format(stamp), why, v.c.near(before), v.c.near(p))
	return late
}

// outcome counts an accepted message as posted, dead-lettered or lost.
func (v *inboundVerdict) outcome(a Accepted) {
	v.r.Accepted++
	switch {
	case v.posted[a.ID]:
		v.r.Posted++
		if v.c.Results[a.ID] == 0 {
			v.r.Unreported++
			v.say("%s: %s was posted, and there is no result", a.Device, a.ID)
		}
	case v.c.Dead[a.ID]:
	default:
		v.r.Lost++
		v.say("%s: %s, message %d, was neither posted nor dead-lettered", a.Device, a.ID, a.Seq)
	}
	if v.c.Dead[a.ID] {
		v.r.Dead++
	}
}
