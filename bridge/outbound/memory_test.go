package outbound

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"plaspy-bridge/bridge/outbound/inventory"
	"plaspy-bridge/bridge/outbound/schedule"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/plaspy/rawjson"
	"plaspy-bridge/publisher"
)

// BenchmarkDeviceMemory measures the memory of a polled device in the pool and
// the adaptive schedule.
func BenchmarkDeviceMemory(b *testing.B) {
	const devices = 20_000
	for b.Loop() {
		before := heap()
		policy := schedule.NewAdaptive(schedule.AdaptiveOptions{Interval: time.Minute, TripStartWeight: 1})
		p := New(options(), newFakeAPI(), plaspy.NewBudget(0, quiet, nil), plaspy.NewCircuit(plaspy.CircuitOptions{Log: quiet}), nil, subjects, policy, quiet, nil)
		list := make([]inventory.Device, devices)
		for i := range list {
			id := fmt.Sprintf("device%06d", i)
			list[i] = inventory.Device{ID: id, Token: id, Name: fmt.Sprint("Truck ", i), Chosen: true}
		}
		p.Follow(list)
		fix := wide(1, 1)
		hash, err := rawjson.Hash([]byte(fix), p.ignore)
		if err != nil {
			b.Fatal(err)
		}
		for _, d := range p.devices {
			f, err := parseFix([]byte(fix), hash)
			if err != nil {
				b.Fatal(err)
			}
			d.remember(f, 1)
			d.setAlertSeq("SOS", 2)
			for range keptDecisions + 1 {
				d.came(resultChanged, nil)
				d.count(&publisher.Event{ID: fmt.Sprintf("%032x", time.Now().UnixNano()), Seq: 1})
				d.busy = true
				p.busy++
				p.release(d, schedule.Observation{Fix: true, FixTime: f.time, Speed: 10, Input: 1})
			}
		}
		b.ReportMetric(float64(heap()-before)/devices, "B/device")
		runtime.KeepAlive(p)
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
