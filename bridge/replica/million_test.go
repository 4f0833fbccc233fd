package replica

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
			s := situation{committed: true, idle: time.Hour, patience: calm, limit: devices}
			s.plan = plan{Epoch: 1, Limit: devices}
			for i := range replicas {
				name := fmt.Sprintf("bridge-%02d", i)
				s.plan.Seats = append(s.plan.Seats, seat{Key: name, Name: name, Slots: devices / replicas})
				if i > 0 {
					s.living = append(s.living, candidate{key: name, id: name, load: devices / replicas, consumes: true, able: true})
				}
			}
			s.gone = func(key string) bool { return key == "bridge-00" }
			for b.Loop() {
				if next, _, ok := s.draft(); !ok || len(next.Seats) != replicas-1 {
					b.Fatalf("drafted %v, %v", next, ok)
				}
			}
		})
	}
}
