package schedule_test

import (
	"fmt"
	"math"
	"time"

	"plaspy-bridge/bridge/outbound/schedule"
)

// The caller has a request for each call of Next. Between the two turns of a device
// lies the interval.
func Example() {
	now := time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC)
	s := schedule.NewFixed(10 * time.Second)
	s.Add(now, "truck7")
	for range 3 {
		id, ok, wake := s.Next(now)
		if !ok { // nothing is worth a request yet
			fmt.Println("wait", wake.Sub(now))
			now = wake
			id, _, _ = s.Next(now)
		}
		fmt.Println(now.Format(time.TimeOnly), "poll", id)
		now = now.Add(time.Second) // in which the API answers
		s.Done(now, id, schedule.Observation{Fix: true, FixTime: now, Changed: true, Speed: math.NaN(), Input: -1})
	}
	fmt.Println(s.Explain(now, "truck7").Reason)
	// Output:
	// 03:04:00 poll truck7
	// wait 9s
	// 03:04:10 poll truck7
	// wait 9s
	// 03:04:20 poll truck7
	// interval
}
