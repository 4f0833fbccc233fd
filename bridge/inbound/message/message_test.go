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
		{"plain", "PLASPY_INBOUND:7", "PLASPY_INBOUND:7"}, {"space", "a b", "sha256:c8687a08aa5d6ed2044328fa6a697ab8e96dc34291e8c2034ae8c38e6fcc6d65"}, {"not ASCII", "é", "sha256:4a99557e4033c3539de2eb65472017cad5f9557f7a0625a09f1c3f6e2ba69c4c"},
		{"long", strings.Repeat("x", 1000), "sha256:44f8354494a5ba03ba1792a8d3e9c534c47a9181980fde7a3f44b06ef2ae7c7f"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := IdempotencyKey(tt.id); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestDotOfATopic: a server writes the dot of an MQTT topic as two slashes.
func TestDotOfATopic(t *testing.T) {
	if a := AddressOf(subjects, "plaspy.in.location.dev//1"); a.Kind != Unknown || !strings.Contains(a.Reason, "=2E") || strings.Contains(a.Reason, "=2F") {
		t.Errorf("%+v", a)
	}
}

// TestKeysDiffer: different ids, and the elements of a batch, have different keys.
func TestKeysDiffer(t *testing.T) {
	long := strings.Repeat("x", maxKey)
	seen := map[string]string{}
	for _, id := range []string{"a", "a b", "a=20b", "a  b", long, long + "y", long + "z", "a#1", IdempotencyKey("a b"), ElementKey("a", 1), "\xff", "\xfe"} {
		key := IdempotencyKey(id)
		if other, twice := seen[key]; twice {
			t.Errorf("%q and %q have the key %q", id, other, key)
		}
		seen[key] = id
	}
	for _, key := range []string{ElementKey("a", 0), ElementKey("a", 1), ElementKey("a#1", 0), ElementKey("a b", 1)} {
		if other, twice := seen[key]; twice {
			t.Errorf("an element has the key %q of %q", key, other)
		}
		seen[key] = key
	}
}

// FuzzAddress: a subject has a reason why it is unknown, or names a device that it
// spells as the bridge would.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{"plaspy.in.location.dev=201", "plaspy.in.alert.a.b", "plaspy.in.x.y", "plaspy.in", "plaspy.in.location.=zz", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, subject string) {
		a := AddressOf(subjects, subject)
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
