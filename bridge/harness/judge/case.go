package judge

import (
	"time"

	"plaspy-bridge/bridge/harness/timeline"
)

// Answer is one answer of lastLocation that has a location.
type Answer struct {
	At   time.Time
	Life int // of the bridge that received it, an index of [Case.Lives], or -1 if unknown
	Raw  string
}

// Event is a message of the events stream.
type Event struct {
	Seq    uint64
	ID     string
	Kind   string // location, alert or device
	Device string // its id
	Stored time.Time

	Raw        string // of a location, the stored bytes
	Backfilled bool   // of a location

	Alert, State, DateTime string // of an alert
	Source                 string // of an alert that does not come from a location

	Change string // of a device

	key string // of a location, its content; set by Outbound
}

// Loss is an event after which the broker no longer holds messages that it acknowledged.
type Loss struct {
	Since time.Time // messages stored after this are gone; zero means all
	At    time.Time // messages stored after this are kept
	All   bool      // the stream itself is gone

	Held []Event   // the content of the stream just before
	Read time.Time // when Held was read
}

// Case has the facts that [Outbound] judges.
type Case struct {
	Shown  map[string][]Answer // by device, in the order of the answers
	Events []Event             // in the order of the stream
	Lives  []timeline.Life     // of all bridges
	Away   []timeline.Span     // of the broker
	Losses []Loss              // of the broker

	// History has, with back-fill, the locations that the API keeps of each device in the
	// order of their own time. It is nil without back-fill.
	History map[string][]string

	Grace   time.Duration // an answer that came this long before a kill may be unstored
	Timeout time.Duration // PLASPY_TIMEOUT
	Workers int           // BRIDGE_WORKERS
}
