// Package daily paces requests so that an account's usage of a UTC day stays within a limit and lasts until midnight.
//
// The API states the account's usage today in its answers. Between answers, a [Pace] adds the expected usage of the
// requests that were granted since. It spreads the rest of the day's usage evenly over the rest of the day. Two
// credits allow bursts: paced requests may be ahead by a small part of the rest, and requests that go first, such
// as posts, by half of it. A request that goes first is paid for by the paced ones, which are held back for it.
//
// The package is pure: it has no clock. Times are durations since the Pace was made, so that setting the machine's
// clock has no effect. The API's own clock, from the Date of its answers, says when midnight is.
package daily

import (
	"math"
	"time"
)

// Kinds is the number of kinds of requests, each of which has an expected usage of its own.
const Kinds = 8

const (
	day = 24 * time.Hour

	ahead      = 1.0 / 64 // of the rest: how far ahead paced requests may be
	firstAhead = 1.0 / 2  // likewise, requests that go first
	// last is how long before midnight the day's rest is free to be used.
	last = time.Minute
	// standing is how long every request must be refused for the usage to be the day's limit. A limit on the rate,
	// which counts over a minute, lets some request pass sooner.
	standing = 2 * time.Minute
	// retry is how often a request is sent while the limit is one that was learnt, in case it was something else.
	retry = 15 * time.Minute
	// ask is how often a request is sent if there seems to be no rest, but the API has not stated a usage yet.
	ask = time.Minute
	// lag is how long after midnight the API may still state yesterday's usage.
	lag = time.Hour
	// skew is the least difference of clocks that counts: Date has whole seconds.
	skew = 2 * time.Second
	// epsilon is less usage than any request has, more than sums of fractions are wrong by.
	epsilon = 1e-6
)

// Request is a request to be granted.
type Request struct {
	Kind  int // 0 to Kinds-1
	First bool
}

// Grant is the right to send one request.
type Grant struct {
	Request
	usage float64 // that the request is expected to have
	mark  float64 // Pace.granted with it
}

// Answer is the part of an API's answer that is about usage.
type Answer struct {
	Usage  int       // apiUsage, of this request
	Total  int       // apiDailyUsage; 0 if the answer does not have it
	Date   time.Time // of the answer; zero if it has none
	Served bool      // the request was carried out
	// Refused means that the request was refused by a limit that is not the device's own.
	Refused bool
}

// Pace decides when requests may be sent. It is not safe for concurrent use. Every method's at must be at least
// that of the call before.
type Pace struct {
	limit   float64 // the setting; 0 means no limit
	learnt  float64 // the usage at which the API refuses everything today; 0 if it does not
	share   float64
	clock   time.Time // the API's, when at is 0
	day     int64     // days since 1970 on that clock
	at      time.Duration
	granted float64 // expected usage of all requests granted so far
	stated  float64 // usage today, by the newest statement
	mark    float64 // granted, for the request of that statement
	before  float64 // stated at the end of the day before
	credit  [2]float64
	cost    [Kinds]estimate
	refused refusals
	tried   time.Duration // when a request was last granted
	heard   bool          // the API has stated a usage
	short   bool
}

// refusals are answers that refuse every request, all with the same usage today.
type refusals struct {
	usage float64 // 0 means none
	since time.Duration
}

// New returns a Pace for a daily limit; 0 means no limit. now is the local clock, which is used until the API has
// stated its own. Until the API has stated the account's usage, it is taken to have been even since midnight.
func New(limit int, now time.Time) *Pace {
	p := &Pace{limit: float64(max(limit, 0)), share: 1, clock: now.UTC().Round(0), tried: -ask}
	p.day = dayOf(p.clock)
	p.stated = p.limit * float64(p.clock.Sub(midnight(p.day))) / float64(day)
	p.credit = p.credits()
	return p
}

// On reports whether there is a limit.
func (p *Pace) On() bool { return p.limit > 0 }

// SetShare sets which part of the day's rest is this replica's, from 0 to 1.
func (p *Pace) SetShare(at time.Duration, share float64) {
	p.turn(at)
	before := p.credits()
	p.share = share
	p.extend(before)
}

// extend raises the credits by as much as their bounds have grown.
func (p *Pace) extend(before [2]float64) {
	for i, most := range p.credits() {
		p.credit[i] += max(0, most-before[i])
	}
}

// Wait returns how long a request must wait at least; 0 means that it may be granted now.
func (p *Pace) Wait(at time.Duration, r Request) time.Duration {
	if !p.On() {
		return 0
	}
	p.turn(at)
	cost := &p.cost[r.Kind]
	if p.rest()+epsilon < cost.most() {
		wait := p.untilMidnight()
		if !p.heard {
			wait = min(wait, max(0, p.tried+ask-at))
		} else if p.learnt > 0 {
			wait = min(wait, max(0, p.tried+retry-at))
		}
		return wait
	}
	limits := p.credits()
	missing := min(cost.mean(), limits[0]) - p.credit[0]
	if r.First {
		missing = min(missing, min(cost.mean(), limits[1])-p.credit[1])
	}
	if missing <= epsilon {
		return 0
	}
	wait := min(missing/p.perSecond(), day.Seconds())
	return min(time.Duration(wait*float64(time.Second))+time.Microsecond, p.untilMidnight())
}

// Grant notes that a request is sent now.
func (p *Pace) Grant(at time.Duration, r Request) Grant {
	if !p.On() {
		return Grant{}
	}
	p.turn(at)
	g := Grant{Request: r, usage: p.cost[r.Kind].mean()}
	p.tried = at
	limits := p.credits()
	for i := range p.credit {
		if i == 0 || r.First {
			p.credit[i] = max(p.credit[i]-g.usage, -max(limits[i], g.usage))
		}
	}
	p.granted += g.usage
	g.mark = p.granted
	return g
}

// Return takes back a grant of a request that was not sent.
func (p *Pace) Return(at time.Duration, g Grant) {
	if !p.On() {
		return
	}
	p.turn(at)
	p.granted -= g.usage
	p.tried = at - retry
	p.credit[0] += g.usage
	if g.First {
		p.credit[1] += g.usage
	}
}

// Heard notes the answer to a granted request.
func (p *Pace) Heard(at time.Duration, g Grant, a Answer) {
	if !p.On() {
		return
	}
	if !a.Date.IsZero() {
		if clock := a.Date.UTC().Add(-at); clock.Sub(p.clock).Abs() > skew {
			p.clock = clock
		}
	}
	p.turn(at)
	if a.Served {
		p.cost[g.Kind].add(a.Usage, p.limit)
		p.refused, p.learnt = refusals{}, 0
	}
	late := day - p.untilMidnight()
	if total := float64(a.Total); total > 0 && !(late < lag && p.before > 0 && total >= p.before) {
		if g.mark >= p.mark || total > p.stated {
			before, first := p.credits(), !p.heard
			p.stated, p.mark, p.heard = total, max(p.mark, g.mark), true
			if first { // until now the credits were those of a guess
				p.extend(before)
			}
		}
	}
	if a.Refused {
		p.refuse(at)
	}
}

// refuse notes a refusal of all requests.
func (p *Pace) refuse(at time.Duration) {
	switch {
	case p.refused.usage != p.stated:
		p.refused = refusals{usage: p.stated, since: at}
	case p.heard && p.stated > 0 && p.learnt == 0 && at-p.refused.since >= standing:
		p.learnt = p.stated
	}
}

// State is how the day stands.
type State struct {
	Limit  int     // today's; 0 means no limit
	Learnt bool    // the API refuses everything at Limit, which is below the setting
	UsedUp bool    // nothing may be sent until midnight
	Short  bool    // Rate is below the rate that would be permitted otherwise
	Rate   float64 // requests of a kind per minute that the rest of the day suffices for; +Inf without a limit
}

// relief is how far Rate must be above the other rate for Short to end, so that it does not flap.
const relief = 1.05

// State returns how the day stands for requests of a kind, of which rate a minute are permitted otherwise.
func (p *Pace) State(at time.Duration, kind int, rate float64) State {
	if !p.On() {
		return State{Rate: math.Inf(1)}
	}
	p.turn(at)
	s := State{Limit: int(p.today()), Learnt: p.learnt > 0}
	if s.UsedUp = p.rest()+epsilon < p.cost[kind].most(); !s.UsedUp {
		s.Rate = 60 * p.perSecond() / p.cost[kind].mean()
	}
	if p.short {
		rate *= relief
	}
	p.short = s.Rate < rate
	s.Short = p.short
	return s
}

// today is the limit in force.
func (p *Pace) today() float64 {
	if p.learnt > 0 {
		return min(p.learnt, p.limit)
	}
	return p.limit
}

// rest is this replica's part of the day's rest.
func (p *Pace) rest() float64 {
	used := p.stated + max(0, p.granted-p.mark)
	return max(0, p.today()-used) * p.share
}

// perSecond is the usage that the rest of the day suffices for.
func (p *Pace) perSecond() float64 { return p.rest() / max(p.untilMidnight(), last).Seconds() }

// credits are the most that requests may be ahead, the paced ones and those that go first.
func (p *Pace) credits() [2]float64 {
	rest := p.rest()
	return [2]float64{max(1, rest*ahead), max(1, rest*firstAhead)}
}

// turn moves on to at: it begins a new day, and refills the credits.
func (p *Pace) turn(at time.Duration) {
	if today := dayOf(p.clock.Add(at)); today != p.day {
		p.before, p.stated, p.mark = p.stated, 0, p.granted
		p.day, p.learnt, p.refused = today, 0, refusals{}
		p.at = at
		p.credit = p.credits()
	}
	limits, refill := p.credits(), p.perSecond()*(at-p.at).Seconds()
	for i := range p.credit {
		p.credit[i] = min(p.credit[i]+refill, limits[i])
	}
	p.at = at
}

func (p *Pace) untilMidnight() time.Duration { return midnight(p.day + 1).Sub(p.clock.Add(p.at)) }

func dayOf(t time.Time) int64 {
	return int64(math.Floor(float64(t.Unix()) / day.Seconds()))
}

func midnight(d int64) time.Time { return time.Unix(d*int64(day/time.Second), 0) }

// estimate is the expected usage of one request of a kind: a mean and a mean deviation, as TCP has them of its
// round trips. The zero value expects 1.
type estimate struct {
	above, deviation float64 // above is the mean less 1
}

// add notes the usage of a request. One that says 0 counts as 1, and one of more than a quarter of the limit as
// a mistake.
func (e *estimate) add(usage int, limit float64) {
	if u := float64(usage); u <= limit/4 {
		off := max(u, 1) - 1 - e.above
		e.above += off / 8
		e.deviation += (math.Abs(off) - e.deviation) / 4
	}
}

func (e *estimate) mean() float64 { return 1 + e.above }

// most is the usage that a request hardly exceeds.
func (e *estimate) most() float64 { return 1 + e.above + 4*e.deviation }
