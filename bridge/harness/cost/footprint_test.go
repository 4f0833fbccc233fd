package cost_test

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"plaspy-bridge/bridge/heap"
	"plaspy-bridge/bridge/outbound"
	"plaspy-bridge/bridge/outbound/schedule"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/view"
	"plaspy-bridge/publisher"
)

var footprint = flag.Int("footprint", 0, "TestFootprint: number of devices, with a table of the memory by function; 0 means the short form")

// mostOfADevice is the largest number of bytes of the live heap that a device may cost.
const mostOfADevice = 1536

// TestFootprint measures what a device costs of the live heap: in the pool, its schedule, the device list and the live
// view. The state of each device is read from the stream, with a location and a raised alert. The devices are then
// polled until each has as many decisions as are kept, and the list was read again.
func TestFootprint(t *testing.T) {
	devices := 5_000
	if *footprint > 0 {
		devices = *footprint
		runtime.MemProfileRate = 512
	}
	for _, name := range []string{"fixed", "adaptive"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				view.New(view.Options{}) // has files of its own
				f := &footing{n: devices}
				before, parts := heap.Live(), partsOfHeap()
				policy := schedule.NewFixed(time.Minute)
				if name == "adaptive" {
					policy = schedule.NewAdaptive(schedule.AdaptiveOptions{Interval: time.Minute, TripStartWeight: 1})
				}
				stop := f.run(t, policy)
				defer stop()
				got := (heap.Live() - before) / int64(devices)
				t.Logf("%d devices, %s schedule: %d bytes each, %d polls", devices, name, got, f.polls.Load())
				if *footprint > 0 {
					f.table(t, parts)
				}
				if got > mostOfADevice {
					t.Errorf("a device costs %d bytes of the live heap, want at most %d", got, mostOfADevice)
				}
			})
		})
	}
}

// footing is an API, a stream and its state for a number of devices. Their answers are made when they are asked for.
type footing struct {
	n     int
	polls atomic.Int64
	seq   atomic.Uint64
}

func (f *footing) id(i int) string { return fmt.Sprintf("8600000%08d", i) }

// body is a location of documented size. It changes with every second minute.
func (f *footing) body(id string, now time.Time) string {
	at := now.Truncate(2 * time.Minute)
	return fmt.Sprintf(`{"deviceId":%q,"dateTime":%q,"latitude":4.6097,"longitude":-74.0817,"speed":%d,"heading":270,"altitude":2640,`+
		`"odometer":%d.5,"ignition":true,"battery":98,"power":12.6,"satellites":11,"hdop":0.9,"gsm":24,"inputs":[true,false],"outputs":[false],`+
		`"address":"Carrera 7 # 32-16, Bogota","alerts":["powerCut"],"alertTexts":["Power was cut"],"hasCriticalAlert":true}`,
		id, at.UTC().Format(time.RFC3339), at.Minute(), at.Unix())
}

// LastLocation implements [outbound.API].
func (f *footing) LastLocation(_ context.Context, id string, buf []byte) (plaspy.LastLocation, error) {
	f.polls.Add(1)
	buf = append(buf[:0], f.body(id, time.Now())...)
	return plaspy.LastLocation{Raw: buf, Buf: buf, At: time.Now()}, nil
}

// DeviceURL implements [outbound.API].
func (f *footing) DeviceURL(id string) string { return "https://api.test/api/devices/" + id }

func (f *footing) entry(i int) string {
	return fmt.Sprintf(`{"id":%q,"name":"Truck %d","type":"truck","plate":"ABC%d"}`, f.id(i), i, i)
}

// Devices implements [inventory.API].
func (f *footing) Devices(context.Context) (list []plaspy.Device, skipped []error, err error) {
	for i := range f.n {
		list = append(list, plaspy.Device{ID: f.id(i), Name: fmt.Sprint("Truck ", i), Raw: []byte(f.entry(i))})
	}
	return list, nil, nil
}

// Groups implements [inventory.API].
func (f *footing) Groups(context.Context) ([]plaspy.Group, []error, error) { return nil, nil, nil }

// State implements [outbound.State].
func (f *footing) State(_ context.Context, _ bool, each func(publisher.Stored)) (publisher.Mark, error) {
	began := time.Now()
	for i := range f.n {
		id, seq := f.id(i), uint64(3*i)
		name := fmt.Sprint("Truck ", i)
		each(publisher.Stored{Kind: "device", Device: id, Seq: seq + 1, At: began, Body: []byte(`{"deviceId":"` + id + `","change":"added","device":` + f.entry(i) + `,"observedAt":"2026-01-01T00:00:00.000Z"}`)})
		each(publisher.Stored{
			Kind: "location", Device: id, Seq: seq + 2, At: began, Header: nats.Header{publisher.HeaderEdges: {"+powerCut"}},
			Body: []byte(`{"deviceId":"` + id + `","name":"` + name + `","observedAt":"2026-01-01T00:00:00.000Z","location":` + f.body(id, began) + `}`),
		})
		each(publisher.Stored{Kind: "alert", Device: id, Alert: "powerCut", Seq: seq + 3, At: began, Body: []byte(`{"deviceId":"` + id + `","name":"` + name + `","alert":"powerCut","state":"raised","critical":true,"dateTime":"2026-01-01T00:00:00Z"}`)})
	}
	f.seq.Store(uint64(3 * f.n))
	return publisher.Mark{Origin: 1, FirstSeq: 1, LastSeq: uint64(3 * f.n)}, nil
}

// StateOf implements [outbound.State].
func (f *footing) StateOf(context.Context, string, bool, func(publisher.Stored)) error { return nil }

// Mark implements [outbound.State].
func (f *footing) Mark(context.Context) (publisher.Mark, error) { return publisher.Mark{}, nil }

// Publish implements [inventory.Stream].
func (f *footing) Publish(_ context.Context, events []*publisher.Event, done func(error)) error {
	for _, e := range events {
		e.Seq, e.ID = f.seq.Add(1), "0123456789abcdef0123456789abcdef"
	}
	go done(nil)
	return nil
}

// Last implements [inventory.Stream].
func (f *footing) Last(context.Context, string) (*publisher.Stored, error) { return nil, nil }

// run polls all devices until each has more decisions than are kept. The returned function stops.
func (f *footing) run(t *testing.T, policy *schedule.Schedule) (stop func()) {
	log := slog.New(slog.DiscardHandler)
	pool := outbound.New(outbound.Options{
		Workers: 16, Refresh: 5 * time.Minute, BackoffInitial: time.Second, BackoffMax: time.Minute, Grace: time.Second,
	}, outbound.Parts{
		API: f, Devices: f, Gaps: noGaps{}, Budget: plaspy.NewBudget(2*f.n, log, nil), Circuit: plaspy.NewCircuit(plaspy.CircuitOptions{Log: log, Max: time.Second}),
		Events: f, State: f, Connected: func() bool { return true }, Schedule: policy, Subjects: "plaspy", Log: log,
	})
	live := view.New(view.Options{Source: shown{pool}, Log: log})
	ctx, cancel := context.WithCancel(t.Context())
	go pool.Run(ctx)
	go live.Run(ctx)
	time.Sleep(7 * time.Minute)
	synctest.Wait()
	return func() {
		cancel()
		synctest.Wait()
		runtime.KeepAlive(live)
	}
}

// shown shows the pool's devices in a live view.
type shown struct{ *outbound.Pool }

// Changed implements [view.Source].
func (s shown) Changed(f func(view.Device)) {
	s.Pool.Changed(func(d outbound.DeviceStatus) { f(view.Device(d)) })
}

// noGaps is asked for no gaps.
type noGaps struct{}

// Locations implements [gap.API].
func (noGaps) Locations(context.Context, string, []byte, plaspy.PostOptions) (plaspy.Answer, error) {
	return plaspy.Answer{Status: http.StatusOK}, nil
}

// Alerts implements [gap.API].
func (noGaps) Alerts(context.Context, string, []byte, plaspy.PostOptions) (plaspy.Answer, error) {
	return plaspy.Answer{Status: http.StatusOK}, nil
}

// partsOfHeap returns the bytes of the live heap by the project's function that allocated them.
func partsOfHeap() map[string]int64 {
	if *footprint == 0 {
		return nil
	}
	runtime.GC()
	runtime.GC()
	n, _ := runtime.MemProfile(nil, false)
	records := make([]runtime.MemProfileRecord, 2*n)
	n, _ = runtime.MemProfile(records, false)
	parts := make(map[string]int64)
	for _, r := range records[:n] {
		if n, size := float64(r.InUseObjects()), float64(r.InUseBytes()); n > 0 { // the samples stand for so many bytes
			parts[owner(r.Stack())] += int64(size / (1 - math.Exp(-size/n/float64(runtime.MemProfileRate))))
		}
	}
	return parts
}

// owner is the innermost function of the project in a stack.
func owner(stack []uintptr) string {
	frames := runtime.CallersFrames(stack)
	last := "?"
	for {
		f, more := frames.Next()
		if name, ok := strings.CutPrefix(f.Function, "plaspy-bridge/"); ok {
			return fmt.Sprintf("%s:%d", strings.TrimPrefix(name, "bridge/"), f.Line)
		}
		if f.Function != "" {
			last = f.Function
		}
		if !more {
			return last
		}
	}
}

// table logs how many bytes each function has allocated for a device since before.
func (f *footing) table(t *testing.T, before map[string]int64) {
	after := partsOfHeap()
	for name, size := range before {
		after[name] -= size
	}
	names := slices.SortedFunc(maps.Keys(after), func(a, b string) int { return cmp.Compare(after[b], after[a]) })
	var sum int64
	for _, name := range names {
		sum += after[name]
	}
	for _, name := range names {
		if size := after[name] / int64(f.n); size != 0 {
			t.Logf("%6d  %s", size, name)
		}
	}
	t.Logf("%6d  together", sum/int64(f.n))
}
