package outbound

import (
	"fmt"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"plaspy-bridge/bridge/outbound/inventory"
	"plaspy-bridge/bridge/outbound/schedule"
	"plaspy-bridge/bridge/outbound/track"
	"plaspy-bridge/publisher"
)

// BenchmarkDeviceMemory measures the memory of a polled device in the pool and
// the adaptive schedule.
func BenchmarkDeviceMemory(b *testing.B) {
	const devices = 20_000
	for b.Loop() {
		before := heap()
		policy := schedule.NewAdaptive(schedule.AdaptiveOptions{Interval: time.Minute, TripStartWeight: 1})
		p := New(options(), parts(newFakeAPI(), nil, policy))
		list := make([]inventory.Device, devices)
		for i := range list {
			id := fmt.Sprintf("device%06d", i)
			list[i] = inventory.Device{ID: id, Token: id, Name: fmt.Sprint("Truck ", i), Chosen: true}
		}
		p.Follow(list)
		fix := wide(1, 1)
		hash, err := p.parser.Hash([]byte(fix))
		if err != nil {
			b.Fatal(err)
		}
		for _, d := range p.fleet.devices {
			f, err := p.parser.Fix([]byte(fix), hash)
			if err != nil {
				b.Fatal(err)
			}
			pub := d.track.Publish(track.News{Observed: time.Now(), Fixes: []*track.Fix{f}})
			for seq := uint64(1); !pub.Done(); seq++ {
				pub.Stored(seq)
			}
			d.track = pub.Track()
			for range keptDecisions + 1 {
				var result decision
				result.note(resultChanged, nil)
				result.noteEvent(&publisher.Event{ID: fmt.Sprintf("%032x", time.Now().UnixNano()), Seq: 1})
				d.busy = true
				p.fleet.busy.add(1)
				p.fleet.release(d, time.Now(), result, ending{learnt: &schedule.Observation{Fix: true, FixTime: f.Time, Speed: 10, Input: 1}})
			}
		}
		b.ReportMetric(float64(heap()-before)/devices, "B/device")
		runtime.KeepAlive(p)
	}
}

// TestDeviceSize: the state of a device is small, because the parts that few devices need are behind pointers, and a
// block of them leaves no memory unused.
func TestDeviceSize(t *testing.T) {
	const most, page = 528, 64 << 10
	if size := unsafe.Sizeof(device{}); size > most {
		t.Errorf("a device has %d bytes, want at most %d: look for padding between its fields", size, most)
	}
	if size := unsafe.Sizeof([deviceBlock]device{}); size > page || page-size > page/100 {
		t.Errorf("a block of devices has %d bytes, want %d or little less: change its number of devices", size, page)
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
