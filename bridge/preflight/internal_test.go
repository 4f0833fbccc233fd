package preflight

import (
	"strings"
	"testing"
	"time"

	"plaspy-bridge/bridge/config"
	"plaspy-bridge/publisher/natstest"

	"github.com/nats-io/nats.go/jetstream"
)

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

// TestPermissionsWithoutAnswer: a server that no longer answers refuses nothing.
func TestPermissionsWithoutAnswer(t *testing.T) {
	server := natstest.Start(t)
	conn := server.Conn(t)
	var found []Finding
	c := &check{cfg: config.Config{Prefix: "plaspy", Timeout: 50 * time.Millisecond}, report: func(f Finding) { found = append(found, f) }}
	b := &broker{check: c, conn: conn, subjects: "plaspy", part: "bridge"}
	server.Kill()
	if missing := b.missing(t.Context(), b.needs()); len(missing) > 0 {
		t.Errorf("missing permissions: %v", missing)
	}
	if len(found) != 1 || found[0].Level != Fail || !strings.Contains(found[0].Text, "did not answer") {
		t.Errorf("found %v", found)
	}
}

// TestRoom: an account with tiers has limits for each number of copies, and the
// bridge's streams count to one.
func TestRoom(t *testing.T) {
	flat := jetstream.Tier{Store: 5, Streams: 2, Limits: jetstream.AccountLimits{MaxStore: 9, MaxStreams: 4}}
	three := jetstream.Tier{Store: 50, Streams: 20, Limits: jetstream.AccountLimits{MaxStore: -1, MaxStreams: 22, MaxConsumers: 3}}
	tiered := &jetstream.AccountInfo{Tier: flat, Tiers: map[string]jetstream.Tier{"R3": three}}
	if r := roomFor(&jetstream.AccountInfo{Tier: flat}, 3); r.used != 5 || r.store != 9 || r.streams != 2 || r.MaxStreams != 4 {
		t.Errorf("without tiers: %+v", r)
	}
	r := roomFor(tiered, 3)
	if r.used != 50 || r.store != 0 || r.streams != 20 || r.MaxStreams != 22 {
		t.Errorf("with tiers: %+v", r)
	}
	for missing, creatable := range map[int]bool{0: true, 2: true, 3: false} {
		if why := r.creatable(missing); (why == "") != creatable {
			t.Errorf("%d missing: %q", missing, why)
		}
	}
	for has, fits := range map[int]bool{0: true, 1: true, 2: false} {
		for limit, by := range map[int]string{0: "the account", 10: "the account", 3: "both"} {
			info := &jetstream.StreamInfo{Config: jetstream.StreamConfig{MaxConsumers: limit}, State: jetstream.StreamState{Consumers: has}}
			if why := r.consumers(info); (why == "") != fits {
				t.Errorf("limited by %s, %d consumers: %q", by, has, why)
			}
		}
	}
	var unknown *room
	if unknown.creatable(9) != "" || unknown.consumers(&jetstream.StreamInfo{}) != "" {
		t.Error("what is not known forbids something")
	}
}

// TestNoTier: an account may allow streams of some numbers of copies only.
func TestNoTier(t *testing.T) {
	info := &jetstream.AccountInfo{Tiers: map[string]jetstream.Tier{"R3": {}}}
	for copies, want := range map[int]Level{1: Fail, 3: OK} {
		var got []Finding
		b := &broker{check: &check{cfg: config.Config{StreamReplicas: copies}, report: func(f Finding) { got = append(got, f) }}}
		b.limits(info)
		if len(got) != 1 || got[0].Level != want {
			t.Errorf("%d copies: %v, want one finding, %s", copies, got, want)
		}
	}
}
