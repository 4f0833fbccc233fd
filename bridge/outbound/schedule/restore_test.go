package schedule_test

import (
	"bytes"
	"testing"
	"time"

	"plaspy-bridge/bridge/outbound/schedule"
)

// memories returns the memory of a device that reports every 30 s, and that of its fleet.
func memories(tb testing.TB) (device, fleet []byte) {
	tb.Helper()
	p := adaptive()
	p.Add(start, "a")
	for now := start; now.Before(start.Add(20 * time.Minute)); now = now.Add(3 * time.Second) {
		if id, ok, _ := p.Next(now); ok {
			p.Done(now, id, ticking(now))
		}
	}
	return p.AppendMemory(nil, "a"), p.AppendFleetMemory(nil)
}

// TestRestoreOfOtherVersions: a memory of another version or length is not used, and the device is polled as one of
// which nothing is known.
func TestRestoreOfOtherVersions(t *testing.T) {
	device, fleet := memories(t)
	later := start.Add(time.Hour)
	if p := adaptive(); !p.RestoreFleet(fleet) || !p.Restore(later, "a", device) {
		t.Fatal("the memory of this version is not used")
	}
	other := func(b []byte, version byte) []byte {
		b = bytes.Clone(b)
		b[0] = version
		return b
	}
	for name, bad := range map[string][2][]byte{
		"nothing": {}, "one byte": {{1}, {1}}, "text": {[]byte("garbage"), []byte("garbage")},
		"a version before": {other(device, device[0]-1), other(fleet, fleet[0]-1)},
		"a later version":  {other(device, device[0]+1), other(fleet, fleet[0]+1)},
		"cut short":        {device[:len(device)-1], fleet[:len(fleet)-1]},
		"too long":         {append(bytes.Clone(device), 0), append(bytes.Clone(fleet), 0)},
		"not numbers":      {append([]byte{device[0]}, bytes.Repeat([]byte{0xff}, len(device)-1)...), append([]byte{fleet[0]}, bytes.Repeat([]byte{0xff}, len(fleet)-1)...)},
	} {
		p := adaptive()
		if p.RestoreFleet(bad[1]) {
			t.Errorf("%s: the fleet's memory is used", name)
		}
		if p.Restore(later, "a", bad[0]) {
			t.Errorf("%s: the device's memory is used", name)
		}
		if _, why := p.Due(later, "a"); why != schedule.ReasonFirst {
			t.Errorf("%s: the device is due because %v", name, why)
		}
		if id, ok, _ := p.Next(later); !ok || id != "a" {
			t.Errorf("%s: the device is not polled", name)
		}
	}
}

// FuzzRestore checks that the schedule works with any content of the bucket, and leaves no device without a poll.
func FuzzRestore(f *testing.F) {
	device, fleet := memories(f)
	f.Add(device, fleet, int64(0))
	f.Add(device, fleet, int64(30*24*time.Hour))
	f.Add(append([]byte{device[0]}, bytes.Repeat([]byte{0x7f}, len(device)-1)...), fleet, int64(-time.Hour))
	for i := range device {
		odd := bytes.Clone(device)
		odd[i] ^= 0xff
		f.Add(odd, fleet, int64(time.Minute))
	}
	f.Fuzz(func(t *testing.T, device, fleet []byte, later int64) {
		const bound = 5 * time.Minute // far longer than an interval
		p := adaptive()
		now := start.Add(time.Duration(later % int64(100*365*24*time.Hour)))
		p.SetRate(now, 30)
		p.RestoreFleet(fleet)
		p.Restore(now, "a", device)
		p.Add(now, "b")
		polls := map[string]int{}
		for end := now.Add(bound); now.Before(end); {
			id, ok, wake := p.Next(now)
			if !ok {
				if wake.IsZero() || !wake.After(now) {
					t.Fatalf("wake %v at %v", wake, now)
				}
				now = wake
				continue
			}
			polls[id]++
			p.Done(now, id, ticking(now))
			now = now.Add(2 * time.Second)
		}
		if polls["a"] == 0 || polls["b"] == 0 {
			t.Errorf("polls: %v", polls)
		}
		if e := p.Explain(now, "a"); e.Line == "" {
			t.Error("no explanation")
		}
	})
}
