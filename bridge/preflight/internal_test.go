package preflight

import (
	"testing"
	"time"
)

func TestParseVersion(t *testing.T) {
	tests := []struct {
		version string
		want    [3]int
		known   bool
	}{
		{"2.15.2", [3]int{2, 15, 2}, true}, {"2.12.0-RC.1", [3]int{2, 12, 0}, true}, {"3.0", [3]int{3, 0, 0}, true},
		{"", [3]int{}, false}, {"dev", [3]int{}, false},
	}
	for _, tt := range tests {
		major, minor, patch, known := parseVersion(tt.version)
		if got := [3]int{major, minor, patch}; got != tt.want || known != tt.known {
			t.Errorf("parseVersion(%q) = %v, %t, want %v, %t", tt.version, got, known, tt.want, tt.known)
		}
	}
}

func TestCovers(t *testing.T) {
	tests := []struct {
		pattern, subject string
		want             bool
	}{
		{"a.*", "a.*", true}, {"a.>", "a.*", true}, {"a.>", "a.*.*", true}, {">", "a", true}, {"a.b", "a.b", true}, {"*.b", "a.b", true},
		{"a.*", "a.>", false}, {"a.b", "a.*", false}, {"a.*", "a", false}, {"a.>", "a", false}, {"a.*", "a.*.*", false}, {"a", "a.b", false},
	}
	for _, tt := range tests {
		if got := covers(tt.pattern, tt.subject); got != tt.want {
			t.Errorf("covers(%q, %q) = %t, want %t", tt.pattern, tt.subject, got, tt.want)
		}
	}
}

func TestOffset(t *testing.T) {
	at := time.Unix(1_000_000, 0)
	tests := []struct {
		name           string
		shown          time.Duration
		sent, received time.Duration
		want           time.Duration
	}{
		{"the same second", 0, 400 * time.Millisecond, 600 * time.Millisecond, 0},
		{"the second began on the way", time.Second, 900 * time.Millisecond, 1100 * time.Millisecond, 0},
		{"ahead", time.Minute, 0, time.Second, 59 * time.Second},
		{"behind", -time.Minute, 0, time.Second, -59 * time.Second},
	}
	for _, tt := range tests {
		if got := offset(at.Add(tt.shown), time.Second, at.Add(tt.sent), at.Add(tt.received)); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}
