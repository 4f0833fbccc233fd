package inventory

import (
	"fmt"
	"testing"

	"plaspy-bridge/bridge/plaspy"
)

func TestChoose(t *testing.T) {
	list := append(devices("a b c a/x"), plaspy.Device{ID: "a"}, plaspy.Device{ID: ""})
	groups := []plaspy.Group{{ID: "g1", Name: "North", Devices: []string{"a", "b"}}, {ID: "g2", Name: "South", Devices: []string{"c", "elsewhere"}}}
	for _, tc := range []struct {
		name string
		s    Selection
		want Choice
	}{
		{"all", Selection{}, Choice{Listed: 4, Chosen: 4}},
		{"ids", Selection{Devices: []string{"a", "c"}}, Choice{Listed: 4, Chosen: 2}},
		{"globs cross slashes", Selection{Devices: []string{"a*"}}, Choice{Listed: 4, Chosen: 2}},
		{"excluded", Selection{Exclude: []string{"?"}}, Choice{Listed: 4, Chosen: 1}},
		{"groups by name and id", Selection{Groups: []string{"North", "g2"}}, Choice{Listed: 4, Chosen: 3}},
		{"groups and excluded", Selection{Groups: []string{"North"}, Exclude: []string{"b"}}, Choice{Listed: 4, Chosen: 1}},
		{"a pattern that matches none", Selection{Devices: []string{"a", `"b`, "z*"}}, Choice{Listed: 4, Chosen: 1, Unused: []string{`"b`, "z*"}}},
		{"a pattern of excluded devices is used", Selection{Devices: []string{"a"}, Exclude: []string{"a"}}, Choice{Listed: 4}},
		{"a group that does not exist", Selection{Groups: []string{"north", "g2"}}, Choice{Listed: 4, Chosen: 1, Unknown: []string{"north"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.s.Choose(list, groups); fmt.Sprint(got) != fmt.Sprint(tc.want) {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}
