package schedule

import "time"

// Observation is the result of one poll. The zero value is an answer without a usable fix.
type Observation struct {
	// Failed: no answer (error, timeout, throttled). It teaches nothing about the device, which is
	// tried again with a growing distance.
	Failed bool
	// NotBefore is the earliest time of the next poll, because the device backs off or its daily
	// quota is used up. The zero time means that there is none.
	NotBefore time.Time
	// Fix: the answer had a usable fix, which the fields below describe.
	Fix bool
	// FixTime is the fix's own dateTime, by the device's clock, which may be off by hours.
	FixTime time.Time
	// Changed: the answer differs from the one before in more than ignored fields.
	Changed bool
	// Speed in km/h; NaN if the fix has none.
	Speed float64
	// Input is the state of the device's digital inputs: -1 unknown, 0 all off, 1 at least one on.
	Input int8
}

// Terms are an operator's settings for one device. The zero value changes nothing.
type Terms struct {
	// Weight is how much the delay of this device counts, relative to 1 for others; 0 means 1. It
	// divides the price of a request and, by its square root, the longest wait. Adaptive only.
	Weight float64
	// Interval replaces the schedule's own interval for this device, whatever the lap; 0 means that
	// it does not.
	Interval time.Duration
}

// Explanation is one device's plan, for a human and for a program.
type Explanation struct {
	// Line is one line without a line break, such as "reports every 30 s, seen 3 s after its own
	// time; next poll 12:03:17 because a fix is due". Times of day are UTC.
	Line string
	// Next is when the device is due; zero if that is not known (a poll is under way, or the device
	// is not in the schedule).
	Next time.Time
	// Reason is why it is due then.
	Reason Reason
}

// Stats are a schedule's own numbers at one moment.
type Stats struct {
	// Lap is the time in which the rate polls every device once; 0 without a limit.
	Lap time.Duration
	// LongestWait is the longest that a device is left without a poll, provided that the caller
	// brings the requests.
	LongestWait time.Duration
	// Impossible: the rate does not suffice to poll every device once an interval.
	Impossible bool
	// TripDetection is the expected delay from the moment at which a trip's first fix could be seen to
	// the poll that sees it: the median over the parked devices; 0 if none is known to be parked.
	TripDetection time.Duration
}

// Reason is why a poll is planned when it is.
type Reason uint8

// All reasons.
const (
	ReasonUnknown  Reason = iota // the device is not in the schedule
	ReasonFirst                  // never polled yet; first polls are spread
	ReasonOut                    // a poll is in flight
	ReasonInterval               // the fixed interval
	ReasonAsked                  // Soon asked for it
	ReasonBackoff                // it is not polled before NotBefore
	ReasonDue                    // a fix is predicted
	ReasonLate                   // a predicted fix has not come yet
	ReasonParked                 // a parked device is checked for a trip
	ReasonRate                   // no rhythm; polled by how often it changes
	ReasonLongest                // it reached the longest wait
	numReasons
)

var reasonNames = [numReasons]string{
	"unknown", "first", "out", "interval", "asked", "backoff", "due", "late", "parked", "rate", "longest",
}

// String returns the reason as one lower-case word, fit for a label.
func (r Reason) String() string {
	if r >= numReasons {
		return reasonNames[ReasonUnknown]
	}
	return reasonNames[r]
}

var reasonClauses = [numReasons]string{
	"it is not in the schedule", "it was never polled", "a poll is in flight", "the fixed interval ends then",
	"its state may be out of date", "it must not be polled earlier", "a fix is due", "a fix is late",
	"a trip may have begun", "a change is likely by then", "the longest wait ends then",
}

func (r Reason) because() string {
	if r >= numReasons {
		return reasonClauses[ReasonUnknown]
	}
	return reasonClauses[r]
}
