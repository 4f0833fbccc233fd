package message

import (
	"strings"
	"testing"

	"plaspy-bridge/publisher"
)

const subjects publisher.Subjects = "plaspy"

func TestID(t *testing.T) {
	for _, tt := range []struct {
		name   string
		header map[string][]string
		want   string
	}{
		{"none", nil, "PLASPY_INBOUND:7"},
		{"the producer's", map[string][]string{headerMsgID: {"a b"}}, "a b"},
		{"put back", map[string][]string{headerMsgID: {"replay:PLASPY_DLQ:1:1"}, HeaderID: {"first"}}, "first"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := &Message{Seq: 7, Header: tt.header}
			if got := m.ID(subjects); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestIdempotencyKey(t *testing.T) {
	for _, tt := range []struct{ name, id, want string }{
		{"plain", "PLASPY_INBOUND:7", "PLASPY_INBOUND:7"}, {"space", "a b", "a=20b"}, {"not ASCII", "é", "=C3=A9"},
		{"long", strings.Repeat("x", 1000), strings.Repeat("x", maxKey)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := IdempotencyKey(tt.id); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// FuzzAddress: whatever the subject, its message has a lane whose filter matches
// it, and a device is one that the subject spells as the bridge would.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{"plaspy.in.location.dev=201", "plaspy.in.alert.a.b", "plaspy.in.x.y", "plaspy.in", "plaspy.in.location.=zz", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, subject string) {
		a := AddressOf(subjects, subject)
		if a.Lane == "" && subject != "" && !strings.HasSuffix(subject, ".") {
			t.Fatalf("%q has no lane", subject)
		}
		if a.Filter != subject && !strings.HasSuffix(subject, strings.TrimPrefix(a.Filter, "plaspy.in.*")) {
			t.Fatalf("%q does not match its filter %q", subject, a.Filter)
		}
		switch a.Kind {
		case Unknown:
			if a.Reason == "" || a.Device != "" {
				t.Fatalf("%q: %+v", subject, a)
			}
		default:
			if token, err := publisher.Token(a.Device); err != nil || "plaspy.in."+string(a.Kind)+"."+token != subject {
				t.Fatalf("%q: %+v", subject, a)
			}
		}
	})
}
