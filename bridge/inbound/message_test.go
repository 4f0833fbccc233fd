package inbound

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"plaspy-bridge/publisher"
)

func TestID(t *testing.T) {
	for _, tt := range []struct {
		name   string
		header nats.Header
		want   string
	}{
		{"none", nil, "PLASPY_INBOUND:7"},
		{"the producer's", nats.Header{nats.MsgIdHdr: {"a b"}}, "a b"},
		{"put back", nats.Header{nats.MsgIdHdr: {"replay:1"}, HeaderID: {"first"}}, "first"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := &message{seq: 7, header: tt.header}
			if got := m.id("PLASPY_INBOUND"); got != tt.want {
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
			if got := idempotencyKey(tt.id); got != tt.want {
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
		a := addressOf(subjects, subject)
		if a.lane == "" && subject != "" && !strings.HasSuffix(subject, ".") {
			t.Fatalf("%q has no lane", subject)
		}
		if a.filter != subject && !strings.HasSuffix(subject, strings.TrimPrefix(a.filter, "plaspy.in.*")) {
			t.Fatalf("%q does not match its filter %q", subject, a.filter)
		}
		switch a.kind {
		case Unknown:
			if a.reason == "" || a.device != "" {
				t.Fatalf("%q: %+v", subject, a)
			}
		default:
			if token, err := publisher.Token(a.device); err != nil || "plaspy.in."+string(a.kind)+"."+token != subject {
				t.Fatalf("%q: %+v", subject, a)
			}
		}
	})
}
