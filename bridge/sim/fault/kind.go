package fault

import "slices"

// Kind is a kind of fault.
type Kind string

// Faults of the whole answer. Unless it says otherwise the API has not carried
// the request out; Rule.Done makes it do so first.
const (
	Status       Kind = "status"       // Rule.Status with Rule.Body, or with the API's kind of error
	Unauthorized Kind = "unauthorized" // 401 for every token
	Throttle     Kind = "throttle"     // 429, with Rule.RetryAfter
	Refuse       Kind = "refuse"       // 200 with success false
	HTML         Kind = "html"         // 200 with a page
	Empty        Kind = "empty"        // 200 without a body
	WrongTypes   Kind = "wrong-types"  // 200 with JSON of other types than documented
	Garbage      Kind = "garbage"      // 200 with random bytes, said to be JSON
	NotHTTP      Kind = "not-http"     // bytes that are not an HTTP answer; a reset if the connection cannot be hijacked
	Redirect     Kind = "redirect"     // Rule.Status, 302 by default, to Rule.Target
	Hang         Kind = "hang"         // no answer until the client leaves
	Reset        Kind = "reset"        // connection reset after the request was read
	ResetUnread  Kind = "reset-unread" // connection reset with the request's body unread
	Huge         Kind = "huge"         // 200 with Rule.Size bytes of valid JSON, their number declared
	Endless      Kind = "endless"      // 200 with JSON that never ends, until the client leaves
	GzipBomb     Kind = "gzip-bomb"    // 200, gzip, Rule.Size bytes after unpacking
	Slow         Kind = "slow"         // the answer, after Rule.Delay and Rule.Tail; other faults still apply
	Truncated    Kind = "truncated"    // the API's answer, cut in half as if that were all
	CutOff       Kind = "cut-off"      // the API's answer, the connection reset in the middle
	HangBody     Kind = "hang-body"    // the API's answer up to the middle, then nothing until the client leaves
)

// Faults in the content of a well-formed answer with status 200.
const (
	NoLocation Kind = "no-location"  // lastLocation absent
	NullIsland Kind = "null-island"  // lastLocation at latitude and longitude 0
	OutOfRange Kind = "out-of-range" // latitude 91.5
	BadTime    Kind = "bad-time"     // dateTime "yesterday", or Rule.Body
	BadUTF8    Kind = "bad-utf8"     // a string field that is not UTF-8
	Duplicate  Kind = "duplicate"    // in the device list, the devices of Rule.Device twice
	Expired    Kind = "expired"      // in the device list, the devices of Rule.Device expired a day ago
	EmptyList  Kind = "empty-list"   // no devices, no groups
)

// Kinds returns all kinds.
func Kinds() []Kind {
	return []Kind{
		Status, Unauthorized, Throttle, Refuse, HTML, Empty, WrongTypes, Garbage, NotHTTP, Redirect, Hang, Reset, ResetUnread,
		Huge, Endless, GzipBomb, Slow, Truncated, CutOff, HangBody,
		NoLocation, NullIsland, OutOfRange, BadTime, BadUTF8, Duplicate, Expired, EmptyList,
	}
}

func (k Kind) known() bool { return slices.Contains(Kinds(), k) }

// Effect is the way in which a kind of fault acts on a request.
type Effect int

// The effects.
const (
	Replaces Effect = iota // another answer than the API's, or none
	Delays                 // the answer comes later
	Cuts                   // the API's answer ends in the middle
	Distorts               // the API's answer has an error in its content
)

// Effect returns how the kind acts on a request.
func (k Kind) Effect() Effect {
	switch k {
	case Slow:
		return Delays
	case Truncated, CutOff, HangBody:
		return Cuts
	case NoLocation, NullIsland, OutOfRange, BadTime, BadUTF8, Duplicate, Expired, EmptyList:
		return Distorts
	default:
		return Replaces
	}
}
