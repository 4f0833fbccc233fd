package fault

import (
	"time"

	"plaspy-bridge/bridge/sim/route"
)

// Rule makes some requests go wrong. The zero value of every field but Kind
// means no restriction, or a default.
type Rule struct {
	Kind Kind
	// Endpoint is a glob over token, devices, device, groups, lastLocation,
	// locations, alerts and unknown. In globs, * is any text and ? one
	// character.
	Endpoint string
	// Device is a glob over device ids. If it is set, the rule is not for
	// requests without a device. Duplicate and Expired apply it to the
	// devices in the list instead.
	Device      string
	From, Until time.Time // the time in which the rule applies, Until excluded
	Times       int       // how often at most; 0 means no limit
	Probability float64   // 0 to 1; 0 means always
	// Done makes the API carry the request out first: it accepts a POST, and
	// the sender gets the fault instead of the confirmation.
	Done bool

	Status     int           // 0 means 500, for Redirect 302
	Body       string        // replaces the body of the kind
	RetryAfter time.Duration // 0 means no Retry-After header; the header has whole seconds, rounded up
	RetryDate  bool          // sends RetryAfter as an HTTP date
	RetryText  string        // replaces the value of the Retry-After header
	Delay      time.Duration // of Slow
	Tail       time.Duration // mean of an exponential time on top of Delay
	Size       int64         // 0 means 200 MB
	Target     string        // empty means a host that does not exist
}

// Request is a request as far as rules look at it.
type Request struct {
	At       time.Time // of its arrival
	Endpoint route.Endpoint
	Device   string // its decoded id; empty if the path names none
}

// applies reports whether the rule is for a request, its probability aside.
func (f *Rule) applies(r Request) bool {
	if f.Endpoint != "" && !glob(f.Endpoint, r.Endpoint.String()) {
		return false
	}
	if !f.From.IsZero() && r.At.Before(f.From) || !f.Until.IsZero() && !r.At.Before(f.Until) {
		return false
	}
	switch f.Kind {
	case Duplicate, Expired:
		return r.Endpoint == route.Devices
	case EmptyList:
		return r.Endpoint == route.Devices || r.Endpoint == route.Groups
	case NoLocation, NullIsland, OutOfRange, BadTime, BadUTF8:
		if r.Endpoint != route.LastLocation {
			return false
		}
	}
	return f.Device == "" || r.Device != "" && glob(f.Device, r.Device)
}

// glob matches a text against a pattern in which * is any text, also with
// slashes, and ? is one character.
func glob(pattern, text string) bool {
	p, t := []rune(pattern), []rune(text)
	i, j, star, from := 0, 0, -1, 0
	for j < len(t) {
		switch {
		case i < len(p) && p[i] == '*':
			star, from = i, j
			i++
		case i < len(p) && (p[i] == '?' || p[i] == t[j]):
			i++
			j++
		case star >= 0: // let the last star have one character more
			from++
			i, j = star+1, from
		default:
			return false
		}
	}
	for i < len(p) && p[i] == '*' {
		i++
	}
	return i == len(p)
}
