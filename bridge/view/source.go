package view

import (
	"context"
	"time"
)

// Device is what is shown of one device.
type Device struct {
	ID   string
	Name string // may be empty
	Gone bool   // it is not shown any more; nothing else but the id counts
	// Busy: it is being polled. Only id and name count, and whatever was shown of
	// it stays.
	Busy bool

	Fix      bool // there is a fix; what follows up to Alerts is its
	FixTime  time.Time
	Seen     time.Time // when the bridge first saw it
	Lat, Lon float32   // degrees, WGS 84
	Speed    float32   // km/h; NaN: not told
	Alerts   []string  // raised now; the view keeps the slice

	Polled   time.Time // end of the last poll; zero: none yet
	Result   string    // of it
	Detail   string    // its error, or empty
	Failures int       // polls in a row that failed
	Next     time.Time // next poll; zero: not known
	Reason   string    // why then, one word
}

// Source knows the devices.
type Source interface {
	// Changed calls f with each device that changed since the call before, on the
	// first call with every one. Only [View.Run] calls it.
	Changed(f func(Device))
	// Why tells the last decisions on a device as JSON; ok is false for one that is
	// not known. It is called from many goroutines, and asks nobody.
	Why(id string) (answer []byte, ok bool)
}

// Status is how the bridge fares. It is compared by its JSON.
type Status struct {
	Ready  bool    `json:"ready"`
	Live   bool    `json:"live"`
	Parts  []Part  `json:"parts"`  // in the order shown
	Hearts []Heart `json:"hearts"` // likewise
	Facts  []Fact  `json:"facts"`  // anything else worth a line, likewise
}

// Part is one part of the bridge.
type Part struct {
	Name     string    `json:"name"`
	OK       bool      `json:"ok"`
	Degraded bool      `json:"degraded,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	Since    time.Time `json:"since"`
}

// Heart is one loop that must not stand still.
type Heart struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	Idle bool   `json:"idle,omitempty"` // it has nothing to do
}

// Fact is one thing to know about the bridge, such as how many replicas there are.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// DeadLetter is an inbound message that was given up.
type DeadLetter struct {
	Sequence uint64    `json:"sequence"`
	At       time.Time `json:"at"`
	Device   string    `json:"device,omitempty"`
	Kind     string    `json:"kind"`
	Reason   string    `json:"reason"`
	Error    string    `json:"error,omitempty"`
	Attempts int       `json:"attempts"`
}

// DeadLetters gives the newest dead letters, the newest first, limit at most.
type DeadLetters func(ctx context.Context, limit int) ([]DeadLetter, error)
