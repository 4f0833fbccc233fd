package sim_test

import (
	"fmt"
	"net/http"
	"net/url"
	"runtime"
	"testing"
	"time"

	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/bridge/sim/fleet"
)

// sink is a ResponseWriter that costs nothing.
type sink struct {
	header http.Header
	status int
	n      int
}

func (w *sink) Header() http.Header         { return w.header }
func (w *sink) WriteHeader(status int)      { w.status = status }
func (w *sink) Write(b []byte) (int, error) { w.n += len(b); return len(b), nil }

// The cost of a lastLocation inside the handler, by how often it is new.
func BenchmarkLastLocation(b *testing.B) {
	for _, percent := range []float64{0, 5, 100} {
		b.Run(fmt.Sprintf("changed=%.0f%%", percent), func(b *testing.B) {
			const n = 20_000
			s := sim.New(sim.Options{Devices: n, Profile: fleet.Percent(percent)})
			u := inProcess(b, s)
			reqs := make([]*http.Request, n)
			for i := range reqs {
				reqs[i] = &http.Request{
					Method: http.MethodGet, URL: &url.URL{Path: fmt.Sprintf("/api/devices/device%04d/lastLocation", i+1)},
					Header: http.Header{"Authorization": {"Bearer " + u.token}}, Body: http.NoBody,
				}
			}
			w := &sink{header: http.Header{}}
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				s.ServeHTTP(w, reqs[i%n])
				i++
			}
			if w.status != 200 {
				b.Fatalf("status %d", w.status)
			}
			b.ReportMetric(float64(w.n)/float64(i), "answer-bytes")
		})
	}
}

// The cost of a whole poll with a plain client, which is most of it.
func BenchmarkPoll(b *testing.B) {
	s := sim.New(sim.Options{Devices: 1})
	for name, u := range map[string]*user{"in-process": inProcess(b, s), "tcp": serve(b, s)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				u.get("/api/devices/device0001/lastLocation")
			}
		})
	}
}

// The cost of accepting a location inside the handler.
func BenchmarkPost(b *testing.B) {
	s := sim.New(sim.Options{Devices: 1, Profile: fleet.Unchanged})
	u := inProcess(b, s)
	now := time.Now()
	w := &sink{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Second)
		req := u.request(http.MethodPost, "/api/devices/device0001/locations", ranged(now, now, `,"location":`+located(now, 1)))
		req.Header.Set("Authorization", "Bearer "+u.token)
		s.ServeHTTP(w, req)
	}
	if w.status != http.StatusOK {
		b.Fatalf("status %d", w.status)
	}
}

func BenchmarkDeviceList(b *testing.B) {
	s := sim.New(sim.Options{Devices: 20_000})
	u := inProcess(b, s)
	req := u.request(http.MethodGet, "/api/devices", "")
	req.Header.Set("Authorization", "Bearer "+u.token)
	w := &sink{header: http.Header{}}
	for b.Loop() {
		s.ServeHTTP(w, req)
	}
}

// BenchmarkFleetMemory reports the memory of a device that was polled once.
func BenchmarkFleetMemory(b *testing.B) {
	const n = 20_000
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		s := sim.New(sim.Options{Devices: n})
		u := inProcess(b, s)
		for _, id := range s.IDs() {
			u.get(device(id, "/lastLocation"))
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "B/device")
		runtime.KeepAlive(s)
	}
}
