package inventory

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/plaspy/rawjson"
	"plaspy-bridge/publisher"
)

// reading is one list of the API, as ids separated by spaces.
type reading struct {
	ids     string
	members string // of the chosen groups; "*": no group is chosen
	early   bool   // it was not a scheduled reading
	want    string // events that become due, without the additions of the first reading
	chosen  string // ids to be polled then; empty: the list's
}

func devices(ids string) []plaspy.Device {
	var list []plaspy.Device
	for id := range strings.FieldsSeq(ids) {
		list = append(list, plaspy.Device{ID: id, Name: "Truck " + id, Raw: []byte(`{"id":"` + id + `"}`)})
	}
	return list
}

func all(string) bool { return true }

// step feeds a reading to a directory and stores the events that are due.
func step(dir *directory, r reading) (events, chosen string) {
	list, _ := usable(time.Time{}, devices(r.ids))
	var members map[string]bool
	if r.members != "*" {
		members = map[string]bool{}
		for id := range strings.FieldsSeq(r.members) {
			members[id] = true
		}
	}
	dir.update(list, members, !r.early)
	due, _ := dir.due(all)
	var lines []string
	for i := range due {
		lines = append(lines, due[i].change.String()[:1]+":"+due[i].r.id)
		due[i].r.stored(&due[i], uint64(i+1))
	}
	var ids []string
	for _, d := range dir.fleet() {
		if d.Chosen {
			ids = append(ids, d.ID)
		}
	}
	return strings.Join(lines, " "), strings.Join(ids, " ")
}

func TestShortLists(t *testing.T) {
	const ten = "a b c d e f g h i j"
	for _, tc := range []struct {
		name     string
		readings []reading
	}{
		{"empty once", []reading{{ids: "a", want: "a:a"}, {chosen: "a"}, {ids: "a"}, {chosen: "a"}, {want: "r:a", chosen: "-"}}},
		{"empty confirmed", []reading{{ids: ten}, {chosen: ten}, {want: "r:a r:b r:c r:d r:e r:f r:g r:h r:i r:j", chosen: "-"}}},
		{"one of two goes", []reading{{ids: "a b"}, {ids: "a", want: "r:b"}}},
		{"two of three go", []reading{{ids: "a b c"}, {ids: "a", want: "r:b r:c"}}},
		{"three of five go", []reading{{ids: "a b c d e"}, {ids: "a b", chosen: "a b c d e"}, {ids: "a b", want: "r:c r:d r:e"}}},
		{"three of six go", []reading{{ids: "a b c d e f"}, {ids: "a b c", want: "r:d r:e r:f"}}},
		{"six of ten go and come back", []reading{{ids: ten}, {ids: "a b c d", chosen: ten}, {ids: ten}, {ids: "a b c d", chosen: ten}, {ids: "a b c d", want: "r:e r:f r:g r:h r:i r:j"}}},
		{"others are missing the second time", []reading{{ids: ten}, {ids: "a b c d", chosen: ten}, {ids: "e f g d", want: "r:h r:i r:j", chosen: "a b c d e f g"}}},
		{"the second list lacks fewer", []reading{{ids: ten}, {ids: "a b", chosen: ten}, {ids: "a b c d e f", want: "r:g r:h r:i r:j"}}},
		{"a short list still adds", []reading{{ids: "a b c d"}, {ids: "z", want: "a:z", chosen: "a b c d z"}}},
		{"an early reading confirms nothing", []reading{{ids: ten}, {chosen: ten}, {early: true, chosen: ten}, {early: true, chosen: ten}, {ids: ten}}},
		{"an early reading is not confirmed at once", []reading{{ids: ten}, {early: true, chosen: ten}, {chosen: ten}, {ids: ten}}},
		{"removed in steps", []reading{{ids: ten}, {ids: "a b c d e", want: "r:f r:g r:h r:i r:j"}, {ids: "a b c", want: "r:d r:e"}, {ids: "a", want: "r:b r:c"}}},
		{"a removed device comes back", []reading{{ids: "a b"}, {ids: "a", want: "r:b"}, {ids: "a b", want: "a:b"}}},
		{"groups empty once", []reading{{ids: "a b", members: "a b"}, {ids: "a b", members: "-", chosen: "a b"}, {ids: "a b", members: "a b"}, {ids: "a b", members: "-", chosen: "a b"}, {ids: "a b", members: "-", chosen: "-"}, {ids: "a b", members: "b", chosen: "b"}}},
		{"a group loses one", []reading{{ids: "a b", members: "a b"}, {ids: "a b", members: "b", chosen: "b"}}},
		{"a group loses most", []reading{{ids: ten, members: ten}, {ids: ten, members: "a b", chosen: ten}, {ids: ten, members: "a b", chosen: "a b"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := newDirectory(Selection{})
			for i, r := range tc.readings {
				if r.members == "" {
					r.members = "*"
				}
				want := r.chosen
				switch want {
				case "":
					want = r.ids
				case "-":
					want = ""
				}
				events, chosen := step(dir, r)
				if i > 0 && events != r.want {
					t.Errorf("reading %d: events %q, want %q", i, events, r.want)
				}
				if sorted(chosen) != sorted(want) {
					t.Errorf("reading %d: chosen %q, want %q", i, chosen, want)
				}
			}
		})
	}
}

func sorted(ids string) string {
	f := strings.Fields(ids)
	slices.Sort(f)
	return fmt.Sprint(f)
}

// TestShortListAtStart: the first list is compared with the devices in the stream.
func TestShortListAtStart(t *testing.T) {
	dir := newDirectory(Selection{})
	images := map[string]Image{}
	for id := range strings.FieldsSeq("a b c d gone") {
		im := Image{ID: id, Event: Event{seq: 1, change: added}, Met: true}
		if id == "gone" {
			im.Event.change = removed
		}
		images[id] = im
	}
	dir.load(images)
	if due, _ := dir.due(all); len(due) != 0 {
		t.Errorf("%d events are due before a list was read", len(due))
	}
	for i, want := range []string{"", "r:a r:b r:c r:d"} {
		if events, _ := step(dir, reading{members: "*"}); events != want {
			t.Errorf("reading %d: events %q, want %q", i, events, want)
		}
	}
}

// TestOthersRemovals: the events of devices that other replicas poll stay unknown
// until the state is read. They must not count as missing from every list.
func TestOthersRemovals(t *testing.T) {
	dir := newDirectory(Selection{})
	images := map[string]Image{}
	for id := range strings.FieldsSeq("a b c d e f g h") {
		images[id] = Image{ID: id, Event: Event{seq: 1, change: added}, Met: true}
	}
	dir.load(images)
	for i, ids := range []string{"a b c d e f g h", "a b c d e f", "a b c d", "a b"} {
		list, _ := usable(time.Time{}, devices(ids))
		dir.update(list, nil, true)
		if dir.list.missing != 0 {
			t.Errorf("list %d is in doubt", i)
		}
	}
}

func TestDue(t *testing.T) {
	const hash = 7
	raw := []byte(`{}`)
	listed := record{id: "a", listed: true, chosen: true, hash: hash, raw: raw}
	for _, tc := range []struct {
		name   string
		record func(*record)
		want   string
	}{
		{"new", func(*record) {}, publisher.Added},
		{"removed once", func(r *record) { r.event = Event{9, 0, removed} }, publisher.Added},
		{"the same", func(r *record) { r.event = Event{9, hash, added} }, ""},
		{"another entry", func(r *record) { r.event = Event{9, 1, changed} }, publisher.Changed},
		{"its event aged out", func(r *record) { r.met = true }, ""},
		{"on its way", func(r *record) { r.busy = true }, ""},
		{"refused", func(r *record) { r.refused = hash }, ""},
		{"another entry was refused", func(r *record) { r.refused = 1 }, publisher.Added},
		{"refused before it changed", func(r *record) { r.event, r.refused = Event{9, 1, added}, hash }, ""},
		{"not chosen", func(r *record) { r.chosen = false }, ""},
		{"not JSON", func(r *record) { r.hash = 0 }, ""},
		{"gone", func(r *record) { r.listed, r.gone, r.event = false, true, Event{9, hash, added} }, publisher.Removed},
		{"gone, its event aged out", func(r *record) { r.listed, r.gone, r.met = false, true, true }, publisher.Removed},
		{"gone and never seen", func(r *record) { r.listed, r.gone = false, true }, ""},
		{"gone, but not chosen", func(r *record) {
			r.id, r.listed, r.gone, r.event = "x", false, true, Event{9, hash, added}
		}, ""},
		{"missing from a short list", func(r *record) { r.missing, r.event = true, Event{9, 1, added} }, ""},
		{"no list yet", func(r *record) { r.listed, r.event = false, Event{9, hash, added} }, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := listed
			tc.record(&r)
			got, ok := r.due(&Selection{Exclude: []string{"x"}})
			if ok != (tc.want != "") || ok && got.change.String() != tc.want {
				t.Errorf("got %v, %v, want %q", got.change, ok, tc.want)
			}
		})
	}
}

// TestRawIsReleased: entries that the stream holds cost no memory, and one that
// it has lost since has the list read again.
func TestRawIsReleased(t *testing.T) {
	dir := newDirectory(Selection{Exclude: []string{"x"}})
	if _, chosen := step(dir, reading{ids: "a b x", members: "*"}); chosen != "a b" {
		t.Fatalf("chosen %q", chosen)
	}
	for id, r := range dir.records {
		if r.raw != nil {
			t.Errorf("%s keeps %s", id, r.raw)
		}
	}
	dir.load(nil)
	if due, reread := dir.due(all); len(due) != 0 || !reread {
		t.Errorf("got %d events, reread %v after the stream lost them", len(due), reread)
	}
	if events, _ := step(dir, reading{ids: "a b x", members: "*", early: true}); events != "a:a a:b" {
		t.Errorf("got %q after the list was read again", events)
	}
}

func TestEntriesThatAreNotUTF8(t *testing.T) {
	list, left := usable(time.Time{}, []plaspy.Device{
		{ID: "a", Name: "Cami\xf3n", Raw: []byte("{\"id\":\"a\",\"name\":\"Cami\xf3n\"}")},
		{ID: "b\xf3", Raw: []byte("{\"id\":\"b\xf3\"}")},
	})
	if got, want := string(list["a"].raw), `{"id":"a","name":"Cami`+"\uFFFD"+`n"}`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := list["a"].name, "Cami\uFFFDn"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if len(left) != 1 || !strings.Contains(left["b\xf3"], "UTF-8") {
		t.Errorf("left out %q", left)
	}
}

func TestReadEvent(t *testing.T) {
	hash, err := rawjson.Hash([]byte(`{"id":"a"}`), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		body string
		want Event
	}{
		{`{"deviceId":"a","change":"added","device":{"id":"a"},"observedAt":"x"}`, Event{7, hash, added}},
		{`{"device": {"id":"a"} , "change": "removed"}`, Event{7, hash, removed}},
		{`{"change":"odd","device":{"id":"a"}}`, Event{7, hash, unknownChange}},
		{`{"change":"added"}`, Event{7, 0, added}},
		{`{"change":""}`, Event{seq: 7}},
		{`{"change":1,"device":{}`, Event{seq: 7}},
		{`not JSON`, Event{seq: 7}},
	} {
		if got := ReadEvent(&publisher.Stored{Seq: 7, Body: []byte(tc.body)}); got != tc.want {
			t.Errorf("%s: got %+v, want %+v", tc.body, got, tc.want)
		}
	}
}

// BenchmarkLoad takes the events of a large fleet over, a device each time.
func BenchmarkLoad(b *testing.B) {
	s := &publisher.Stored{Seq: 7, Body: []byte(`{"deviceId":"device000001","change":"added","device":{"id":"device000001","name":"Truck 1","description":"","min":"+573001234567","tags":{},"expires":"2030-01-01T00:00:00Z"},"observedAt":"2026-01-02T03:04:05.678Z"}`)}
	b.ReportAllocs()
	for b.Loop() {
		ReadEvent(s)
	}
}
