package view

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkSecond is one second of a view: 1,000 of 10,000 devices were polled,
// 300 of them have news.
func BenchmarkSecond(b *testing.B) {
	for _, pages := range []int{0, 1, 16} {
		b.Run(fmt.Sprintf("pages=%d", pages), func(b *testing.B) {
			source := &plain{}
			v := New(Options{Source: source, Log: quietLog})
			fleet := make([]Device, 10_000)
			for i := range fleet {
				fleet[i] = truck(fmt.Sprint("dev ", i), float32(i)/1000)
			}
			source.put(fleet...)
			v.update(time.Now())
			var clients []*client
			for range pages {
				clients = append(clients, v.join())
			}
			now, next, sent := time.Now(), 0, 0
			b.ReportAllocs()
			for b.Loop() {
				now = now.Add(time.Second)
				for i := range 1000 {
					d := &fleet[next%len(fleet)]
					next++
					d.Polled, d.Next = now, now.Add(time.Minute)
					if i%10 < 3 {
						d.Lat += 0.001
						d.FixTime, d.Seen = now, now
					}
					source.next = append(source.next, *d)
				}
				v.update(now)
				for _, c := range clients {
					for len(c.frames) > 0 {
						sent += len(<-c.frames)
					}
				}
			}
			b.ReportMetric(float64(sent)/float64(max(pages, 1)*b.N), "B/page")
		})
	}
}

// BenchmarkPicture measures the cost of the first picture of a fleet of 10,000.
func BenchmarkPicture(b *testing.B) {
	v := busy(b, 10_000)
	b.ReportAllocs()
	for b.Loop() {
		b.SetBytes(int64(len(v.takeSnapshotLocked(time.Now()))))
	}
}
