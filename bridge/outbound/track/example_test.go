package track_test

import (
	"fmt"
	"time"

	"plaspy-bridge/bridge/outbound/track"
)

// printer makes events by printing them.
type printer struct{}

func (printer) Location(l track.Location) {
	fmt.Printf("location of %s after sequence %d, announces %q\n", l.Fix.DateTime, l.Expect, l.Announced)
}

func (printer) Alert(a track.Alert) {
	fmt.Printf("alert %s %s after sequence %d\n", a.Alert, a.State, a.Expect)
}

// A device's answers are published as the events that the stream lacks.
func Example() {
	parser := track.NewParser([]string{"inactiveSeconds"}, func(s string) (time.Time, error) { return time.Parse(time.RFC3339, s) })
	device := track.New(false) // the stream holds nothing of it
	sequence := uint64(0)
	for _, answer := range []string{
		`{"dateTime":"2026-01-02T03:04:05Z","latitude":4.7,"longitude":-74.1,"alerts":["SOS"]}`,
		`{"dateTime":"2026-01-02T03:04:05Z","latitude":4.7,"longitude":-74.1,"alerts":["SOS"],"inactiveSeconds":9}`,
		`{"dateTime":"2026-01-02T03:04:35Z","latitude":4.8,"longitude":-74.1,"alerts":[]}`,
	} {
		hash, err := parser.Hash([]byte(answer))
		if err != nil {
			panic(err)
		}
		if device.Same(hash) {
			fmt.Println("unchanged")
			continue
		}
		fix, err := parser.Fix([]byte(answer), hash)
		if err != nil {
			panic(err)
		}
		p := device.Publish(track.News{Observed: fix.Time, Fixes: []*track.Fix{fix}})
		for !p.Done() {
			p.Next(1, printer{})
			sequence++ // the stream has stored the event
			p.Stored(sequence)
		}
		device = p.Track()
	}
	// Output:
	// location of "2026-01-02T03:04:05Z" after sequence 0, announces "+SOS"
	// alert SOS raised after sequence 0
	// unchanged
	// location of "2026-01-02T03:04:35Z" after sequence 1, announces "-SOS"
	// alert SOS cleared after sequence 2
}
