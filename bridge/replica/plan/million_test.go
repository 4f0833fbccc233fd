package plan

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkMillion drafts the plan after one of several replicas has left, for an
// account with a million devices, each polled once a minute. The plan does not name
// devices, so its cost depends on the replicas alone.
func BenchmarkMillion(b *testing.B) {
	const devices = 1_000_000
	for _, replicas := range []int{3, 20, 50} {
		b.Run(fmt.Sprint(replicas, " replicas"), func(b *testing.B) {
			s := Situation{Committed: true, Idle: time.Hour, Patience: calm, Limit: devices}
			s.Plan = Plan{Epoch: 1, Limit: devices}
			for i := range replicas {
				name := fmt.Sprintf("bridge-%02d", i)
				s.Plan.Seats = append(s.Plan.Seats, Seat{Key: name, Name: name, Slots: devices / replicas})
				if i > 0 {
					s.Living = append(s.Living, Candidate{Key: name, ID: name, Load: devices / replicas, Consumes: true, Able: true})
				}
			}
			s.Gone = func(key string) bool { return key == "bridge-00" }
			for b.Loop() {
				if next, _, ok := s.Draft(); !ok || len(next.Seats) != replicas-1 {
					b.Fatalf("drafted %v, %v", next, ok)
				}
			}
		})
	}
}
