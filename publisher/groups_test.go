package publisher

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSetGroups(t *testing.T) {
	s := Subjects("plaspy")
	for _, ids := range [][]string{{}, {"7"}, {"north, south", `"quoted"`, "=20", "Ünïted"}} {
		for _, e := range []*Event{
			s.LocationEvent(&Location{DeviceID: "d", Token: "d", FixTime: time.Now(), Raw: []byte(`{"v":1}`)}, 1),
			s.AlertEvent(&Alert{DeviceID: "d", Token: "d", Alert: "SOS", AlertToken: "SOS", DateTime: []byte(`"x"`), Latitude: []byte(`1`), Longitude: []byte(`2`)}, 1),
		} {
			content := e.content
			e.SetGroups(ids)
			var body struct {
				DeviceID string
				Groups   []string
			}
			if err := json.Unmarshal(e.msg.Data, &body); err != nil {
				t.Fatalf("%s: %v", e.msg.Data, err)
			}
			if body.DeviceID != "d" || body.Groups == nil || !slices.Equal(body.Groups, ids) {
				t.Errorf("got %+v of %s, want %q", body, e.msg.Data, ids)
			}
			var got []string
			for token := range strings.SplitSeq(e.msg.Header.Get(HeaderGroups), ",") {
				id, err := Decode(token)
				if err == nil && id != "" {
					got = append(got, id)
				}
			}
			if !slices.Equal(got, ids) {
				t.Errorf("header %q has %q, want %q", e.msg.Header.Get(HeaderGroups), got, ids)
			}
			if e.content != content {
				t.Error("the event's id depends on the groups")
			}
		}
	}
}
