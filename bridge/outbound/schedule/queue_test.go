package schedule

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"
)

func TestQueueKeepsOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var q queue
	want := make(map[int32]tick)
	for range 5000 {
		slot := int32(r.IntN(200))
		if r.IntN(4) == 0 {
			q.drop(slot)
			delete(want, slot)
			continue
		}
		due := tick(r.IntN(1000))
		q.set(slot, due)
		want[slot] = due
		if got, ok := q.due(slot); !ok || got != due {
			t.Fatalf("due of %d: got %d, %v, want %d", slot, got, ok, due)
		}
	}
	if got := q.len(); got != len(want) {
		t.Fatalf("len: got %d, want %d", got, len(want))
	}
	var all []tick
	for _, due := range want {
		all = append(all, due)
	}
	slices.Sort(all)
	for _, due := range all {
		slot, got := q.top()
		if got != due || want[slot] != due {
			t.Fatalf("top: got slot %d due %d, want %d", slot, got, due)
		}
		q.drop(slot)
	}
}

func TestQueueIsFairAmongEquals(t *testing.T) {
	var q queue
	for slot := range int32(50) {
		q.set(slot, 7)
	}
	for want := range int32(50) {
		got, _ := q.top()
		if got != want {
			t.Fatalf("top: got %d, want %d", got, want)
		}
		q.drop(got)
	}
}

func TestMarketMeetsTheSupply(t *testing.T) {
	var m market
	for second := range 600 {
		for range 10 { // ten devices a second, each with a fix every 30 s
			m.add(tick(second)*1e9, 20, 60, func(price float64) float64 { return math.Sqrt(2 * price / 0.01) })
		}
	}
	m.settle(5, 60, 0.01)
	// 200 devices at sqrt(2 price/0.01) s between polls are 97% of 5 a second.
	want := 0.01 / 2 * (200 / (5 * bought)) * (200 / (5 * bought))
	if math.Abs(m.price-want) > 0.05*want {
		t.Errorf("price: got %.2f, want %.2f", m.price, want)
	}
}

// The memory of a device, without its id and its entry of a map.
func TestDeviceIsSmall(t *testing.T) {
	const queues, perQueue = 2, unsafe.Sizeof(entry{}) + 4
	got := unsafe.Sizeof(device{}) + unsafe.Sizeof(deviceState{}) + queues*perQueue + 4 + unsafe.Sizeof("") + unsafe.Sizeof(presence{})
	t.Logf("%d bytes", got)
	if got > 500 {
		t.Errorf("bytes per device: got %d, want 500 at most", got)
	}
}
