package publisher_test

import (
	"errors"
	"strings"
	"testing"

	"plaspy-bridge/publisher"
)

func TestEncode(t *testing.T) {
	for _, tt := range []struct{ name, id, want string }{
		{"plain", "device123", "device123"},
		{"space", "dev 1", "dev=201"},
		{"wildcards and dots", "a.b*c>", "a=2Eb=2Ac=3E"},
		{"equals sign", "a=20", "a=3D20"},
		{"slash", "a/b", "a=2Fb"},
		{"MQTT wildcards", "+#", "=2B=23"},
		{"emoji", "🚚", "=F0=9F=9A=9A"},
		{"nul", "\x00", "=00"},
		{"dash and underscore", "A-b_9", "A-b_9"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := publisher.Encode(tt.id)
			if got != tt.want {
				t.Errorf("Encode(%q) = %q, want %q", tt.id, got, tt.want)
			}
			if back, err := publisher.Decode(got); err != nil || back != tt.id {
				t.Errorf("Decode(%q) = %q, %v, want %q", got, back, err, tt.id)
			}
		})
	}
}

func TestDecodeRefusesOtherSpellings(t *testing.T) {
	for _, token := range []string{"a b", "a.b", "=2", "=", "a=2f", "=41", "=GG", "é", "=2E=4"} {
		if got, err := publisher.Decode(token); err == nil {
			t.Errorf("Decode(%q) = %q, want an error", token, got)
		}
	}
}

func TestTokenRefusesByName(t *testing.T) {
	for _, id := range []string{"", strings.Repeat("é", 400)} {
		if _, err := publisher.Token(id); !errors.Is(err, publisher.ErrToken) {
			t.Errorf("Token(%.8q...) = %v, want %v", id, err, publisher.ErrToken)
		}
	}
	if got, err := publisher.Token("dev 1"); err != nil || got != "dev=201" {
		t.Errorf("Token(dev 1) = %q, %v", got, err)
	}
}

func FuzzEncode(f *testing.F) {
	for _, id := range []string{"", "dev 1", "a.b", "=20", "..", "🚚", "\xff\x00"} {
		f.Add(id, id+"x")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		ta, tb := publisher.Encode(a), publisher.Encode(b)
		if strings.ContainsAny(ta, ".*> \t\r\n/+#$") {
			t.Errorf("Encode(%q) = %q is not one token", a, ta)
		}
		if back, err := publisher.Decode(ta); err != nil || back != a {
			t.Errorf("Decode(Encode(%q)) = %q, %v", a, back, err)
		}
		if (ta == tb) != (a == b) {
			t.Errorf("Encode(%q) = %q, Encode(%q) = %q", a, ta, b, tb)
		}
		// A token that decodes has one spelling only.
		if id, err := publisher.Decode(a); err == nil && publisher.Encode(id) != a {
			t.Errorf("Decode(%q) = %q, which encodes to %q", a, id, publisher.Encode(id))
		}
	})
}

func TestSubjects(t *testing.T) {
	s := publisher.Subjects("my-fleet")
	for _, tt := range []struct{ got, want string }{
		{s.Location("d"), "my-fleet.location.d"},
		{s.Alert("d", "SOS"), "my-fleet.alert.d.SOS"},
		{s.Device("d"), "my-fleet.device.d"},
		{s.InLocation("d"), "my-fleet.in.location.d"},
		{s.InAlert("d"), "my-fleet.in.alert.d"},
		{s.Result("alert", "d"), "my-fleet.result.alert.d"},
		{s.DeadLetter("location", "d"), "my-fleet.dlq.location.d"},
		{s.DeadLetterUnknown(), "my-fleet.dlq.unknown"},
		{s.Events(), "MY_FLEET_EVENTS"},
		{s.Inbound(), "MY_FLEET_INBOUND"},
		{s.Results(), "MY_FLEET_RESULTS"},
		{s.DeadLetters(), "MY_FLEET_DLQ"},
		{s.LastBucket(), "my_fleet_last"},
		{s.ReplicasBucket(), "my_fleet_replicas"},
		{s.API(), "my-fleet.api"},
	} {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
}

func TestKind(t *testing.T) {
	s := publisher.Subjects("plaspy")
	for _, tt := range []struct {
		subject, kind, device, alert string
		ok                           bool
	}{
		{"plaspy.location.d", "location", "d", "", true},
		{"plaspy.device.d", "device", "d", "", true},
		{"plaspy.alert.d.SOS", "alert", "d", "SOS", true},
		{"plaspy.alert.d", "", "", "", false},
		{"plaspy.alert.d.", "", "", "", false},
		{"plaspy.alert.d.a.b", "", "", "", false},
		{"plaspy.location.d.e", "", "", "", false},
		{"plaspy.location.", "", "", "", false},
		{"plaspy.in.location", "", "", "", false},
		{"other.location.d", "", "", "", false},
	} {
		kind, device, alert, ok := s.Kind(tt.subject)
		if kind != tt.kind || device != tt.device || alert != tt.alert || ok != tt.ok {
			t.Errorf("Kind(%q) = %q %q %q %v", tt.subject, kind, device, alert, ok)
		}
	}
}

func TestLiteral(t *testing.T) {
	for subject, want := range map[string]bool{
		"a": true, "_INBOX.x.1": true, "a.b-c.d=20": true, "": false, ".a": false, "a.": false, "a..b": false, "a.*": false, "a.>": false,
		"a*b": false, "a b": false, "a.b\n": false, "a\x00": false, "a\tb": false,
	} {
		if got := publisher.Literal(subject); got != want {
			t.Errorf("Literal(%q) = %t", subject, got)
		}
	}
}
