package plan

import (
	"cmp"
	"slices"
	"time"

	"plaspy-bridge/bridge/replica/rendezvous"
)

// unlimited is divided if there is no limit; then only the proportions matter.
const unlimited = 1 << 20

// Plan defines which replicas share the work. Epochs count up by one.
type Plan struct {
	Epoch uint64 `json:"epoch"`
	Limit int    `json:"limit"` // requests per minute, an upper bound of the sum of slots
	// Lowered counts the members that gave up slots since slots were last given out.
	// It decides the length of the next pause.
	Lowered int    `json:"lowered,omitempty"`
	Seats   []Seat `json:"seats"` // by key
	// Poster is the key of the member that posts inbound messages, which has slots. It
	// is empty if no member can post, or an earlier version wrote the plan.
	Poster string `json:"poster,omitempty"`
}

// Seat is a member's place in a plan.
type Seat struct {
	Key   string `json:"key"`
	Name  string `json:"name"` // devices are divided by it, so a restarted replica keeps its devices
	Slots int    `json:"slots"`
}

// Same reports whether two plans of one epoch are the same. They may differ after
// the store was restored to an earlier state.
func (p *Plan) Same(other *Plan) bool {
	return p.Limit == other.Limit && p.Lowered == other.Lowered && slices.Equal(p.Seats, other.Seats) &&
		(p.Poster == "" || p.Poster == other.Poster)
}

// Valid reports whether a replica can have written p.
func (p *Plan) Valid() bool {
	keys, names, left := make(map[string]bool), make(map[string]bool), p.Limit
	for _, s := range p.Seats {
		if s.Slots < 0 || s.Slots > left || keys[s.Key] || names[s.Name] {
			return false
		}
		left -= s.Slots
		keys[s.Key], names[s.Name] = true, true
	}
	return p.Epoch > 0 && p.Limit > 0 && p.Limit <= unlimited*1000 && p.Lowered >= 0
}

// Seat returns the place of a member. The result is false if it has none.
func (p *Plan) Seat(key string) (Seat, bool) {
	for _, s := range p.Seats {
		if s.Key == key {
			return s, true
		}
	}
	return Seat{}, false
}

// Full reports whether there are as many members as requests a minute, so that
// another member would have none to send.
func (p *Plan) Full() bool {
	working := 0
	for _, s := range p.Seats {
		if s.Slots > 0 {
			working++
		}
	}
	return p.Epoch > 0 && working >= p.Limit
}

// Slots returns the sum of the slots of all members.
func (p *Plan) Slots() (sum int) {
	for _, s := range p.Seats {
		sum += s.Slots
	}
	return sum
}

// View returns one member's part of the devices. It is nil if the member has no slots.
func (p *Plan) View(key string) *rendezvous.View {
	me, seated := p.Seat(key)
	if !seated || me.Slots == 0 {
		return nil
	}
	var names []string
	for _, s := range p.Seats {
		if s.Slots > 0 {
			names = append(names, s.Name)
		}
	}
	return rendezvous.New(names, me.Name)
}

// Candidate is a living replica that may have a seat.
type Candidate struct {
	Key, ID string
	Load    int // polls a minute; 0 means not known. See [Bounded].
	Posts   int // posts a minute. See [Bounded].
	// Consumes means that it may post inbound messages, and Able that it can reach the
	// API.
	Consumes, Able bool
}

// maxLoad limits a load. It is far above any real one, and small enough for
// multiplications.
const maxLoad = 1 << 30

// Bounded returns a load from the bucket, which may hold any value, as a number that
// a candidate may have.
func Bounded(load int) int { return min(max(load, 0), maxLoad) }

// Situation holds everything that a plan is drafted from.
type Situation struct {
	Plan      Plan
	Gone      func(key string) bool // has left or been evicted
	Committed bool                  // all members obey the plan
	Idle      time.Duration         // time since that was noticed
	Limit     int                   // requests per minute; 0 means no limit
	Living    []Candidate           // by key, with those that have a seat
	// Patience is the least age of a plan before the posting seat moves because its
	// holder cannot reach the API.
	Patience time.Duration
}

const (
	// window is the span over which requests are counted, plus a margin for requests
	// that are sent late.
	window = 62 * time.Second
	// calm is the least age of a plan before it changes only because loads changed.
	calm = 30 * time.Second
)

// Draft returns the next plan. ok is false if none is due; again is then the time
// after which to call it again if nothing changes, or 0 if there is no need.
func (s *Situation) Draft() (next Plan, again time.Duration, ok bool) {
	next, again, ok = s.redivide()
	if !ok && s.Committed && s.poster(&s.Plan) != s.Plan.Poster {
		next, again, ok = s.Plan, 0, true
		next.Epoch++
	}
	if ok {
		next.Poster = s.poster(&next)
	}
	return next, again, ok
}

// poster returns the key of the member that posts under the next plan. A member
// keeps the seat while it has slots and can post. If it cannot reach the API, it
// loses the seat after a while to a member that can.
func (s *Situation) poster(next *Plan) string {
	var able, other string
	keep := false
	for _, c := range s.Living {
		if place, _ := next.Seat(c.Key); place.Slots == 0 || !c.Consumes {
			continue
		}
		if c.Key == s.Plan.Poster {
			keep = c.Able || s.Idle < s.Patience
			other = c.Key
		}
		other = cmp.Or(other, c.Key)
		if c.Able {
			able = cmp.Or(able, c.Key)
		}
	}
	if keep {
		return s.Plan.Poster
	}
	return cmp.Or(able, other)
}

// redivide returns the next division of devices and budget.
func (s *Situation) redivide() (next Plan, again time.Duration, ok bool) {
	limit := s.Limit
	if limit == 0 {
		limit = unlimited
	}
	if next, ok := s.without(); ok {
		return next, 0, true
	}
	if !s.Committed {
		return Plan{}, 0, false
	}
	target := allocate(limit, s.Living)
	if next, ok := s.lower(limit, target); ok {
		return next, 0, true
	}
	return s.raise(limit, target)
}

// without removes members that are gone. It cannot wait until the plan in force is
// acknowledged, because they will never acknowledge it.
func (s *Situation) without() (Plan, bool) {
	next := Plan{Epoch: s.Plan.Epoch + 1, Limit: s.Plan.Limit, Lowered: s.Plan.Lowered}
	for _, old := range s.Plan.Seats {
		switch {
		case !s.Gone(old.Key):
			next.Seats = append(next.Seats, old)
		case old.Slots > 0:
			next.Lowered++
		}
	}
	return next, len(next.Seats) < len(s.Plan.Seats)
}

// lower takes slots from members with more than their part, if others need them.
func (s *Situation) lower(limit int, target map[string]int) (Plan, bool) {
	surplus, missing, drift := 0, 0, false
	for _, old := range s.Plan.Seats {
		want := target[old.Key]
		surplus += max(0, old.Slots-want)
		most := max(old.Slots, want)
		drift = drift || max(old.Slots-want, want-old.Slots) > max(2, most/8)
	}
	for _, c := range s.Living {
		if old, _ := s.Plan.Seat(c.Key); old.Slots == 0 {
			missing += target[c.Key]
		}
	}
	free := limit - s.Plan.Slots()
	due := free < 0 || free*4 < missing*3 || drift && s.Idle >= calm
	if surplus == 0 || !due {
		return Plan{}, false
	}
	next := Plan{Epoch: s.Plan.Epoch + 1, Limit: limit, Lowered: s.Plan.Lowered}
	for _, old := range s.Plan.Seats {
		if want := target[old.Key]; want < old.Slots {
			old.Slots = want
			next.Lowered++
		}
		next.Seats = append(next.Seats, old)
	}
	return next, true
}

// raise gives out free slots once they have been idle for long enough.
func (s *Situation) raise(limit int, target map[string]int) (next Plan, again time.Duration, ok bool) {
	free := limit - s.Plan.Slots()
	lacks := make([]int, len(s.Living))
	begin, more := 0, 0 // members that get their first slots, and members that get more
	for i, c := range s.Living {
		old, _ := s.Plan.Seat(c.Key)
		lacks[i] = max(0, target[c.Key]-old.Slots)
		switch {
		case lacks[i] == 0:
		case old.Slots == 0:
			begin++
		default:
			more++
		}
	}
	if free <= 0 || begin+more == 0 {
		return Plan{}, 0, false
	}
	if s.Limit > 0 && s.Plan.Epoch > 0 {
		if rest := pause(free, s.Plan.Lowered, begin, more) - s.Idle; rest > 0 {
			return Plan{}, rest, false
		}
	}
	next = Plan{Epoch: s.Plan.Epoch + 1, Limit: limit}
	gifts := divide(free, lacks)
	for i, c := range s.Living {
		place, seated := s.Plan.Seat(c.Key)
		if !seated {
			place = Seat{Key: c.Key, Name: s.name(c)}
		}
		place.Slots += min(gifts[i], lacks[i])
		if seated || place.Slots > 0 {
			next.Seats = append(next.Seats, place)
		}
	}
	return next, 0, true
}

// name returns the replica's id, or a unique name if another replica has the same id.
func (s *Situation) name(c Candidate) string {
	for _, old := range s.Plan.Seats {
		if old.Name == c.ID {
			return c.Key
		}
	}
	for _, other := range s.Living {
		if other.ID == c.ID && other.Key != c.Key {
			return c.Key
		}
	}
	return c.ID
}

// pause is how long slots stay idle before they are given out, so that no
// sliding window holds more requests than the limit.
//
// A replica with r slots sends n requests in a time only if it lasts n-1 times
// window/r. Over a window with one rate that makes n <= r. Over a window in which
// the rate was lowered, n is at most 1 more than the mean rate, and if it was raised
// at most 2 more, or 1 if it was 0 before. The slots that lie idle take
// free*pause/window requests out of every such window; that must be no less than
// what is added. After a whole window no further pause is
// needed: nothing in it was sent at a rate higher than the present one.
func pause(free, lowered, begin, more int) time.Duration {
	extra := lowered + begin + 2*more
	return min(window, window*time.Duration(extra)/time.Duration(free))
}

// allocate divides the limit in proportion to the loads. A newcomer has the average
// load. Each replica gets at least a quarter of the mean, because with less it could
// not find out that its load has grown, and at least one request a minute while
// there are enough.
func allocate(limit int, living []Candidate) map[string]int {
	target := make(map[string]int, len(living))
	if len(living) == 0 {
		return target
	}
	if limit <= len(living) {
		for _, c := range living[:limit] {
			target[c.Key] = 1
		}
		return target
	}
	for i, n := range divide(limit-len(living), wants(limit, living)) {
		target[living[i].Key] = n + 1
	}
	return target
}

// wants returns the weight of each replica. One replica posts for all, and its posts
// count as much as all polls together. If the limit is too low for both, each gets
// half, as in a single bridge.
func wants(limit int, living []Candidate) []int {
	sum, known, posts := 0, 0, 0
	for _, c := range living {
		posts += c.Posts
		if c.Load > 0 {
			sum += c.Load
			known++
		}
	}
	mean := 4 // without any load, equal parts
	if known > 0 {
		mean = max(sum/known, 4)
	}
	polls := sum + mean*(len(living)-known)
	room := max(polls, limit-polls)
	weights := make([]int, len(living))
	for i, c := range living {
		weights[i] = max(c.Load, mean/4)
		if c.Load == 0 {
			weights[i] = mean
		}
		if posts > room {
			c.Posts = int(float64(c.Posts) * float64(room) / float64(posts))
		}
		weights[i] += c.Posts
	}
	return weights
}

// divide divides n in proportion to the weights, by largest remainders.
func divide(n int, weights []int) []int {
	parts := make([]int, len(weights))
	sum := 0
	for _, w := range weights {
		sum += w
	}
	if sum == 0 {
		return parts
	}
	type rest struct{ i, r int }
	rests := make([]rest, len(weights))
	left := n
	for i, w := range weights {
		parts[i] = n * w / sum
		rests[i] = rest{i, n * w % sum}
		left -= parts[i]
	}
	slices.SortStableFunc(rests, func(a, b rest) int { return cmp.Compare(b.r, a.r) })
	for _, r := range rests[:left] {
		parts[r.i]++
	}
	return parts
}
