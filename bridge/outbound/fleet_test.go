package outbound

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"plaspy-bridge/bridge/outbound/inventory"
	"plaspy-bridge/publisher/natstest"
)

func TestDeviceEvents(t *testing.T) {
	api := newFakeAPI("a", "b")
	srv := natstest.Start(t)
	r := newRig(t, srv, api, options())
	r.until("b", body(`"deviceId":"b"`))
	api.set(func() { api.list[0] = `{"id":"a","name":"New name"}` })
	r.until("the change", body(`"change":"changed"`))
	api.setList("a") // a changes its name back, b is gone
	r.until("the removal", body(`"change":"removed"`))
	api.set(func() { api.listErr = errors.New("down"); api.list = nil })
	r.polls("a", 20)
	r.stop()
	got := summary(r.events())
	slices.Sort(got)
	equal(t, got, []string{"device.a added", "device.a changed", "device.a changed", "device.b added", "device.b removed"})

	// While it was down: a changed, b came back. Nothing is told twice.
	before := len(r.events())
	api.set(func() {
		api.listErr = nil
		api.list = []string{`{"name":"Other","id":"a"}`, `{"id":"b"}`, `{"id":"b","name":"twice"}`, `{"id":"old","expires":"2020-01-01T00:00:00Z"}`}
	})
	r = newRig(t, srv, api, options())
	r.polls("b", 5)
	r.stop()
	got = summary(r.events())[before:]
	slices.Sort(got)
	equal(t, got, []string{"device.a changed", "device.b added"})
	if api.polls["old"] != 0 {
		t.Error("an expired device was polled")
	}
}

func TestSelection(t *testing.T) {
	for _, tt := range []struct {
		name string
		s    inventory.Selection
		want string
	}{
		{"all", inventory.Selection{}, "a a/x b c"},
		{"ids", inventory.Selection{Devices: []string{"a", "c"}}, "a c"},
		{"globs cross slashes", inventory.Selection{Devices: []string{"a*"}}, "a a/x"},
		{"excluded", inventory.Selection{Exclude: []string{"?"}}, "a/x"},
		{"groups by name and id", inventory.Selection{Groups: []string{"North", "g2"}}, "a b c"},
		{"groups and excluded", inventory.Selection{Groups: []string{"North"}, Exclude: []string{"b"}}, "a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			api := newFakeAPI("a", "b", "c", "a/x")
			o := options()
			o.Select = tt.s
			r := newRig(t, natstest.Start(t), api, o)
			r.polls(strings.Fields(tt.want)[0], 5)
			r.stop()
			var got []string
			for id := range api.polls {
				got = append(got, id)
			}
			slices.Sort(got)
			equal(t, got, strings.Fields(tt.want))
		})
	}
}
