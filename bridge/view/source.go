package view

import (
	"context"
	"time"
)

// Device is the state of one device that the page shows.
type Device struct {
	ID   string
	Name string // may be empty
	Gone bool   // the device is removed; only ID is set
	// Busy means that the device is being polled. Only ID and Name are set; the page
	// keeps the rest.
	Busy bool

	Fix      bool // there is a fix: the fields up to Alerts are set
	FixTime  time.Time
	Seen     time.Time // when the bridge first saw the fix
	Lat, Lon float32   // degrees, WGS 84
	Speed    float32   // km/h; NaN means not known
	Alerts   []string  // raised now; the view keeps the slice

	Polled   time.Time // end of the last poll; zero means none yet
	Result   string    // of the last poll
	Detail   string    // its error, or empty
	Failures int       // consecutive failed polls
	Next     time.Time // of the next poll; zero means not known
	Reason   string    // for the time of the next poll, one word
}

// Source provides the state of the devices.
type Source interface {
	// Changed calls f with each device that changed since the last call; the first
	// call passes every device. No two calls overlap.
	Changed(f func(Device))
	// Why returns the last decisions on a device as JSON; ok is false if the device is
	// not known. It is safe for concurrent use and must not block.
	Why(id string) (answer []byte, ok bool)
}

// Status is the health of the bridge. It is sent to the pages when its JSON changes.
type Status struct {
	Ready  bool    `json:"ready"`
	Live   bool    `json:"live"`
	Parts  []Part  `json:"parts"`  // in the order shown
	Hearts []Heart `json:"hearts"` // in the order shown
	Facts  []Fact  `json:"facts"`  // other lines, in the order shown
}

// Part is one part of the bridge.
type Part struct {
	Name     string    `json:"name"`
	OK       bool      `json:"ok"`
	Degraded bool      `json:"degraded,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	Since    time.Time `json:"since"`
}

// Heart is one loop that must make progress.
type Heart struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	Idle bool   `json:"idle,omitempty"` // the loop has nothing to do
}

// Fact is one line about the bridge, such as the number of replicas.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// DeadLetter is an inbound message that could not be posted.
type DeadLetter struct {
	Sequence uint64    `json:"sequence"`
	At       time.Time `json:"at"`
	Device   string    `json:"device,omitempty"`
	Kind     string    `json:"kind"`
	Reason   string    `json:"reason"`
	Error    string    `json:"error,omitempty"`
	Attempts int       `json:"attempts"`
}

// DeadLetters returns the newest dead letters, newest first, at most limit.
type DeadLetters func(ctx context.Context, limit int) ([]DeadLetter, error)
