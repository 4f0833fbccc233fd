package schedule

import "time"

// Policy decides whom to poll next. It is told what time it is and never looks at a clock itself, so
// that the same calls always give the same answers. It is not safe for concurrent use: the caller
// serialises the calls. None of them blocks, and none takes longer than O(log N) for N devices
// (Stats: O(1)), apart from the amortised cost of growing.
//
// The times handed in are the caller's own clock. They may carry a monotonic reading (time.Now does),
// which then shields the plan from steps of the wall clock; a time before the last one handed in
// counts as that last one.
type Policy interface {
	// SetRate says how many requests a minute polls may use from now on; 0, negative or not a
	// number: no limit. The policy plans with it but does not count requests: holding the budget is
	// up to the caller, who asks Next only with a request in hand.
	SetRate(now time.Time, perMinute float64)
	// Add takes a device under care. A device that is there already stays as it is. First polls are
	// spread evenly, the first of them at once.
	Add(now time.Time, id string)
	// Remove forgets a device, also while it is out; its Done is then expected all the same, and
	// until then an Add brings it back with all that was learnt.
	Remove(now time.Time, id string)
	// Next says whom the request in hand should go to. A device returned is out, and not returned
	// again, until Done. Where ok is false, nothing is worth a request before wake; a zero wake
	// means until another call changes something.
	Next(now time.Time) (id string, ok bool, wake time.Time)
	// Done says what the poll of a device that is out showed, at the time its answer was there.
	// For a device that is not out it does nothing.
	Done(now time.Time, id string, o Observation)
	// PutBack gives back a device that is out and was not asked about: nothing is learnt, and it is
	// due again at notBefore, or at once if that is zero or past. For a device that is not out it
	// does nothing.
	PutBack(now time.Time, id string, notBefore time.Time)
	// Soon asks for a device to be polled before all others that are not asked for likewise: its
	// state is in doubt. NotBefore of the last observation is still honoured.
	Soon(now time.Time, id string)
	// Explain tells a human what the policy makes of a device and when it polls it next.
	Explain(now time.Time, id string) Explanation
	// Due is Explain without words, for whoever asks about many devices: when the device is due,
	// zero where that is not known, and why then.
	Due(now time.Time, id string) (next time.Time, why Reason)
	// Stats are the policy's own numbers, for metrics and for what is said at start.
	Stats(now time.Time) Stats
	// Len is the number of devices under care.
	Len() int
}

// Observation is what one poll showed. The zero value is an answer without a usable fix.
type Observation struct {
	// Failed: no answer (error, timeout, throttled). It teaches nothing about the device.
	Failed bool
	// NotBefore: the device is left alone until then (it backs off, or its daily quota is used up).
	// Zero: no such wish.
	NotBefore time.Time
	// Fix: the answer had a usable fix, to which the rest applies.
	Fix bool
	// FixTime is the fix's own dateTime, by the device's clock, which may be off by hours.
	FixTime time.Time
	// Changed: the answer differs from the one before in more than ignored fields.
	Changed bool
	// Speed in km/h; NaN where the fix has none.
	Speed float64
	// Input tells of the device's digital inputs: -1 unknown, 0 all off, 1 at least one on.
	Input int8
}

// Explanation is one device's plan, for a human and for a program.
type Explanation struct {
	// Line is one line without a line break, such as "reports every 30 s, seen 3 s after its own
	// time; next poll 12:03:17 because a fix is due". Times of day are UTC.
	Line string
	// Next is when the device is due; zero where that is not known (out, not under care).
	Next time.Time
	// Reason is why then.
	Reason Reason
}

// Stats are a policy's own numbers at one moment.
type Stats struct {
	// Devices under care.
	Devices int
	// Rate is the requests a minute last set; 0: no limit.
	Rate float64
	// Lap is the time in which the rate polls every device once; 0 without a limit.
	Lap time.Duration
	// LongestWait is the longest that a device is left without a poll, as far as the caller brings
	// the requests to hold it.
	LongestWait time.Duration
	// Impossible: the rate does not even suffice to poll every device once an interval.
	Impossible bool
	// Price of a request in seconds of delay saved, below which none is made; 0 for a policy
	// without one.
	Price time.Duration
	// TripDetection is the expected delay from the moment a trip's first fix could be seen to the
	// poll that sees it: the median over the parked devices; 0 where none is known to be parked.
	TripDetection time.Duration
}

// Reason is why a poll is planned when it is.
type Reason uint8

// The reasons, which are all there are.
const (
	ReasonUnknown  Reason = iota // the device is not under care
	ReasonFirst                  // never polled yet; first polls are spread
	ReasonOut                    // a poll is under way
	ReasonInterval               // it is its turn at the fixed interval
	ReasonAsked                  // Soon asked for it
	ReasonBackoff                // it is left alone until NotBefore
	ReasonDue                    // a fix is predicted
	ReasonLate                   // a predicted fix has not come yet
	ReasonParked                 // a parked device is checked for a trip
	ReasonRate                   // no rhythm; polled by its rate of news
	ReasonLongest                // it waits no longer than the longest wait
	numReasons
)

var reasonNames = [numReasons]string{
	"unknown", "first", "out", "interval", "asked", "backoff", "due", "late", "parked", "rate", "longest",
}

// String is the reason in one lower-case word, fit for a label.
func (r Reason) String() string {
	if r >= numReasons {
		return reasonNames[ReasonUnknown]
	}
	return reasonNames[r]
}

var reasonClauses = [numReasons]string{
	"it is not under care", "it was never polled", "a poll is under way", "it is its turn",
	"its state is in doubt", "it is left alone until then", "a fix is due", "a fix is late",
	"a trip may have begun", "news is likely by then", "it waits no longer than that",
}

func (r Reason) because() string {
	if r >= numReasons {
		return reasonClauses[ReasonUnknown]
	}
	return reasonClauses[r]
}
