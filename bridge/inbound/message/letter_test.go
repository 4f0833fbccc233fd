package message

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// TestLetterHeaders: of a message's own headers the letter has all but those that
// the bridge or the server would take for their own.
func TestLetterHeaders(t *testing.T) {
	w := &Writer{Subjects: subjects}
	for _, tt := range []struct {
		name   string
		header map[string][]string
		want   map[string]string // beside the bridge's own
		id     string
	}{
		{"a producer's", map[string][]string{"Other": {"a", "b"}, "Nats-Msg-Id": {"mine"}, "nats-foo": {"x"}, "Reply-To": {"r"}},
			map[string]string{"Other": "a,b", "Plaspy-Original-Nats-Msg-Id": "mine", "Plaspy-Original-nats-foo": "x", "Reply-To": "r"}, "mine"},
		{"of MQTT", map[string][]string{"Nmqtt-Pub": {"1"}, "nmqtt-x": {"1"}, "Other": {"a"}}, map[string]string{"Other": "a"}, "PLASPY_INBOUND:7"},
		{"that look like the bridge's", map[string][]string{"plaspy-REASON": {"x"}, "Plaspy-Truncated": {"9"}, "Plaspy-Status": {"1"}, "Plaspy-Last-Try": {"x"}, "Plaspy-Own": {"y"}},
			map[string]string{"Plaspy-Own": "y"}, "PLASPY_INBOUND:7"},
		{"that look like a replay's", map[string][]string{"Nats-Msg-Id": {"mine"}, "Plaspy-Id": {"another's"}, "plaspy-history": {"\x1b[2J"}, "Plaspy-Original-Nats-Msg-Id": {"z"}},
			map[string]string{"Plaspy-Original-Nats-Msg-Id": "mine"}, "mine"},
		{"a replay's", map[string][]string{"Nats-Msg-Id": {"replay:PLASPY_DLQ:1:1"}, "Plaspy-Id": {"first"}, "Plaspy-History": {"h"}},
			map[string]string{"Plaspy-Original-Nats-Msg-Id": "replay:PLASPY_DLQ:1:1", "Plaspy-Id": "first", "Plaspy-History": "h"}, "first"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := at(Location, "", "{}")
			m.Header = tt.header
			before := maps.Clone(m.Header)
			if got := m.ID(subjects); got != tt.id {
				t.Errorf("id %q, want %q", got, tt.id)
			}
			got := map[string]string{}
			for name, values := range w.Letter(m, &Decision{Reason: "r"}).Header {
				if !slices.Contains(made[:], name) && name != headerMsgID {
					got[name] = strings.Join(values, ",")
				}
			}
			if !maps.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
			if !maps.EqualFunc(m.Header, before, slices.Equal) {
				t.Error("the message's own headers were changed")
			}
		})
	}
}

func TestText(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"plain", "rejected", "rejected"}, {"lines", "a\r\nb\x1b[2Jc", "a b [2Jc"}, {"no UTF-8", "a\xffb", "a b"}, {"around", " a\n", "a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Text(tt.text); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	if got := Text(strings.Repeat("é", 1000)); len(got) > maxText || !strings.HasSuffix(got, "...") {
		t.Errorf("%d bytes", len(got))
	}
}
