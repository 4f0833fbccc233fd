package sim

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Kind is a kind of fault.
type Kind string

// Faults of the whole answer. Unless it says otherwise the API has not carried
// the request out; Fault.Done makes it do so first.
const (
	Status       Kind = "status"       // Fault.Status with Fault.Body, or with the API's kind of error
	Unauthorized Kind = "unauthorized" // 401 for every token
	Throttle     Kind = "throttle"     // 429, with Fault.RetryAfter
	Refuse       Kind = "refuse"       // 200 with success false
	HTML         Kind = "html"         // 200 with a page
	Empty        Kind = "empty"        // 200 without a body
	WrongTypes   Kind = "wrong-types"  // 200 with JSON of other types than documented
	Garbage      Kind = "garbage"      // 200 with random bytes, said to be JSON
	NotHTTP      Kind = "not-http"     // bytes that are not an HTTP answer; a reset if the connection cannot be hijacked
	Redirect     Kind = "redirect"     // Fault.Status, 302 by default, to Fault.Target
	Hang         Kind = "hang"         // no answer until the client leaves
	Reset        Kind = "reset"        // connection reset after the request was read
	ResetUnread  Kind = "reset-unread" // connection reset with the request's body unread
	Huge         Kind = "huge"         // 200 with Fault.Size bytes of valid JSON, their number declared
	Endless      Kind = "endless"      // 200 with JSON that never ends, until the client leaves
	GzipBomb     Kind = "gzip-bomb"    // 200, gzip, Fault.Size bytes after unpacking
	Slow         Kind = "slow"         // the answer, after Fault.Delay and Fault.Tail; other faults still apply
	Truncated    Kind = "truncated"    // the API's answer, cut in half as if that were all
	CutOff       Kind = "cut-off"      // the API's answer, the connection reset in the middle
	HangBody     Kind = "hang-body"    // the API's answer up to the middle, then nothing until the client leaves
)

// Faults in the content of a well-formed answer with status 200.
const (
	NoLocation Kind = "no-location"  // lastLocation absent
	NullIsland Kind = "null-island"  // lastLocation at latitude and longitude 0
	OutOfRange Kind = "out-of-range" // latitude 91.5
	BadTime    Kind = "bad-time"     // dateTime "yesterday", or Fault.Body
	BadUTF8    Kind = "bad-utf8"     // a string field that is not UTF-8
	Duplicate  Kind = "duplicate"    // in the device list, the devices of Fault.Device twice
	Expired    Kind = "expired"      // in the device list, the devices of Fault.Device expired a day ago
	EmptyList  Kind = "empty-list"   // no devices, no groups
)

// Kinds are all of them.
func Kinds() []Kind {
	return []Kind{
		Status, Unauthorized, Throttle, Refuse, HTML, Empty, WrongTypes, Garbage, NotHTTP, Redirect, Hang, Reset, ResetUnread,
		Huge, Endless, GzipBomb, Slow, Truncated, CutOff, HangBody,
		NoLocation, NullIsland, OutOfRange, BadTime, BadUTF8, Duplicate, Expired, EmptyList,
	}
}

func (k Kind) known() bool { return slices.Contains(Kinds(), k) }

// Fault is something that goes wrong for some requests. The zero value of
// every field but Kind means no restriction, or a default.
type Fault struct {
	Kind Kind
	// Endpoint is a glob over token, devices, device, groups, lastLocation,
	// locations, alerts and unknown. In globs, * is any text and ? one
	// character.
	Endpoint string
	// Device is a glob over device ids; with one, requests about no device
	// are spared. Duplicate and Expired take it for the devices in the list.
	Device      string
	From, Until time.Time // when it is on, Until excluded
	Times       int       // how often at most; 0: no limit
	Probability float64   // 0 to 1; 0: always
	// Done has the API carry the request out first: a POST is accepted, and
	// its sender does not learn it.
	Done bool

	Status     int           // 0: 500 for Status, 302 for Redirect
	Body       string        // instead of the kind's own
	RetryAfter time.Duration // 0: no Retry-After header; in whole seconds, rounded up
	RetryDate  bool          // RetryAfter as an HTTP date
	RetryText  string        // the header's value as it stands, instead
	Delay      time.Duration // of Slow
	Tail       time.Duration // mean of an exponential time on top of Delay
	Size       int64         // 0: 200 MB
	Target     string        // empty: a host that does not exist
}

// armed is a fault that was switched on.
type armed struct {
	Fault
	id   uint64
	left int // of Times
}

// faults are those switched on, in order.
type faults struct {
	some atomic.Bool // whether there are any, for the path without

	mu   sync.Mutex
	rng  *rand.Rand
	next uint64
	list []*armed
}

func (fs *faults) seed(seed uint64) { fs.rng = rand.New(rand.NewPCG(seed, 0x0fa017)) }

func (fs *faults) any() bool { return fs.some.Load() }

// Fault switches a fault on, behind those that are on already: of several that
// apply to a request, the delays add up and the first other one happens. Call
// remove to switch it off; a second time has no effect.
func (s *Server) Fault(f Fault) (remove func()) {
	id := s.faults.add(f)
	return func() { s.faults.remove(id) }
}

// ClearFaults switches all faults off. Requests that hang go on hanging.
func (s *Server) ClearFaults() {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	s.faults.list = nil
	s.faults.some.Store(false)
}

func (fs *faults) add(f Fault) uint64 {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.next++
	fs.list = append(fs.list, &armed{f, fs.next, f.Times})
	fs.some.Store(true)
	return fs.next
}

func (fs *faults) remove(id uint64) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.list = slices.DeleteFunc(fs.list, func(a *armed) bool { return a.id == id })
	fs.some.Store(len(fs.list) > 0)
}

// pick returns the fault of a request.
func (fs *faults) pick(c *call) (delay time.Duration, f *Fault) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, a := range fs.list {
		if !a.applies(c) || a.Probability > 0 && fs.rng.Float64() >= a.Probability {
			continue
		}
		if a.Kind != Slow && f != nil {
			continue
		}
		if a.Times > 0 {
			if a.left == 0 {
				continue
			}
			a.left--
		}
		if a.Kind == Slow {
			delay += a.Delay + time.Duration(float64(a.Tail)*fs.rng.ExpFloat64())
			continue
		}
		picked := a.Fault
		f = &picked
	}
	return delay, f
}

func (a *armed) applies(c *call) bool {
	if a.Endpoint != "" && !glob(a.Endpoint, c.endpoint.String()) {
		return false
	}
	if !a.From.IsZero() && c.at.Before(a.From) || !a.Until.IsZero() && !c.at.Before(a.Until) {
		return false
	}
	switch a.Kind {
	case Duplicate, Expired:
		return c.endpoint == devices
	case EmptyList:
		return c.endpoint == devices || c.endpoint == groups
	case NoLocation, NullIsland, OutOfRange, BadTime, BadUTF8:
		if c.endpoint != lastLocation {
			return false
		}
	}
	return a.Device == "" || c.id != "" && glob(a.Device, c.id)
}

// shapes reports whether the answer is the API's own with an error in it.
func (f *Fault) shapes() bool {
	switch f.Kind {
	case NoLocation, NullIsland, OutOfRange, BadTime, BadUTF8, Duplicate, Expired, EmptyList:
		return true
	}
	return false
}

// answers reports whether the API carries out the request before the fault.
func (f *Fault) answers() bool {
	switch f.Kind {
	case Truncated, CutOff, HangBody:
		return true
	}
	return f.shapes()
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
