package control

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)

func rulesOf(pairs ...string) *Rules {
	var items []Item
	for i := 0; i < len(pairs); i += 2 {
		items = append(items, Item{Key: pairs[i], Value: []byte(pairs[i+1]), Revision: uint64(i + 1), Written: now})
	}
	return NewRules(now, items)
}

// TestFieldByField checks the order device, group, fleet for each field alone.
func TestFieldByField(t *testing.T) {
	r := rulesOf(
		"fleet", `{"interval":"60s","weight":2,"paused":true}`,
		"group.g2", `{"weight":4,"interval":"20s"}`,
		"group.g1", `{"weight":3,"set_by":"eva@laptop"}`,
		"device.a", `{"paused":false}`,
		"device.b", `{"interval":"5s","weight":8}`,
	)
	for name, tt := range map[string]struct {
		token  string
		groups []string
		want   string
	}{
		"fleet alone":     {"x", nil, `[{"entry":"fleet","interval":"1m0s","weight":2,"paused":true}]`},
		"device, fleet":   {"a", nil, `[{"entry":"device.a","paused":false},{"entry":"fleet","interval":"1m0s","weight":2}]`},
		"all of device":   {"b", []string{"g1"}, `[{"entry":"device.b","interval":"5s","weight":8},{"entry":"fleet","paused":true}]`},
		"unknown group":   {"x", []string{"other"}, `[{"entry":"fleet","interval":"1m0s","weight":2,"paused":true}]`},
		"first of groups": {"a", []string{"g1", "g2"}, `[{"entry":"device.a","paused":false},{"entry":"group.g2","interval":"20s"},{"entry":"group.g1","weight":3,"setBy":"eva@laptop"}]`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := json.Marshal(r.Device(tt.token, tt.groups).Effects())
			if err != nil {
				t.Fatal(err)
			}
			if text := strings.ReplaceAll(string(got), `,"setAt":"2026-01-02T03:00:00Z"`, ""); text != tt.want {
				t.Errorf("got  %s\nwant %s", text, tt.want)
			}
		})
	}
}

func TestNoEntries(t *testing.T) {
	for _, r := range []*Rules{{}, rulesOf(), rulesOf("device.a", `{`)} {
		if terms := r.Device("a", []string{"g"}); terms != (Terms{}) || terms.Effects() != nil || r.Len() != 0 || r.Groups() || r.Fleet() != nil {
			t.Errorf("got %+v of %+v", terms, r)
		}
	}
}

// TestEnds checks that an entry has no effect from its end on, and that Ends is the
// next such time.
func TestEnds(t *testing.T) {
	items := []Item{
		{Key: "device.a", Value: []byte(`{"paused":true,"until":"2026-01-02T03:00:01Z"}`)},
		{Key: "device.b", Value: []byte(`{"paused":true,"until":"2026-01-02T05:00:02+02:00"}`)},
		{Key: "device.c", Value: []byte(`{"paused":true}`)},
	}
	for _, tt := range []struct {
		at   time.Duration
		len  int
		ends time.Duration
	}{{0, 3, time.Second}, {time.Second - 1, 3, time.Second}, {time.Second, 2, 2 * time.Second}, {2 * time.Second, 1, 0}} {
		r := NewRules(now.Add(tt.at), items)
		if r.Len() != tt.len {
			t.Errorf("after %v: %d entries, want %d", tt.at, r.Len(), tt.len)
		}
		if got := r.Ends(); tt.ends == 0 && !got.IsZero() || tt.ends > 0 && !got.Equal(now.Add(tt.ends)) {
			t.Errorf("after %v: ends %v, want %v later", tt.at, got, tt.ends)
		}
	}
}

// TestUnreadableHasNoEffect checks that a value that cannot be read leaves the
// wider entries in force.
func TestUnreadableHasNoEffect(t *testing.T) {
	r := rulesOf("fleet", `{"weight":2}`, "device.a", `{"paused":true,"weight":100}`, "nonsense", `{}`)
	if got := r.Device("a", nil); got.Paused || got.Weight != 2 {
		t.Errorf("got %+v, want the fleet's weight and no pause", got)
	}
	if list := r.Unreadable(); len(list) != 2 || list[0].Key != "device.a" || !strings.Contains(list[0].Reason, "weight") {
		t.Errorf("unreadable: %+v", list)
	}
}

// TestAll checks the list of the entries in force, in the order in which they decide, with the limits of the
// fleet's entry.
func TestAll(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r := NewRules(now, []Item{
		{Key: FleetKey, Value: []byte(`{"rate_limit": 300, "devices_exclude": "x*", "set_by": "eva"}`)},
		{Key: "group.North", Value: []byte(`{"weight": 2}`)},
		{Key: "device.b", Value: []byte(`{"interval": "5s"}`)},
		{Key: "device.a", Value: []byte(`{"paused": true, "until": "2026-01-02T03:04:05Z"}`)}, // ended
		{Key: "device.c", Value: []byte(`{"paused": true}`)},
	})
	var keys []string
	for _, n := range r.All() {
		keys = append(keys, n.Key)
	}
	if want := []string{"device.b", "device.c", "group.North", "fleet"}; !slices.Equal(keys, want) {
		t.Errorf("got %q, want %q", keys, want)
	}
	d := r.Device("z", nil)
	if d.Set() {
		t.Error("a limit of the rate counts as a setting of each device")
	}
	effects := d.Effects()
	if len(effects) != 1 || effects[0].RateLimit != 300 || !slices.Equal(effects[0].Exclude, []string{"x*"}) || effects[0].SetBy != "eva" {
		t.Errorf("got %+v, want the fleet's entry", effects)
	}
}
