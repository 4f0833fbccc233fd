package auth

import (
	"encoding/base64"
	"fmt"
	"testing"
	"time"
)

func jwt(payload string) string {
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(`{"alg":"none"}`)) + "." + enc([]byte(payload)) + ".sig"
}

func TestLife(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	agree := clocks{sent: now, received: now.Add(100 * time.Millisecond), date: now}
	in := func(d time.Duration) string { return now.Add(d).Format(time.RFC3339) }
	exp := func(d time.Duration) string { return jwt(fmt.Sprintf(`{"exp":%d}`, now.Add(d).Unix())) }
	for _, tc := range []struct {
		name, token, expires string
		clocks               clocks
		want                 time.Duration
	}{
		{"expires", "t", in(time.Hour), agree, time.Hour},
		{"expires before the claim", exp(2 * time.Hour), in(time.Hour), agree, time.Hour},
		{"claim where expires is missing", exp(2 * time.Hour), "", agree, 2 * time.Hour},
		{"claim where expires is unreadable", exp(2 * time.Hour), "tomorrow", agree, 2 * time.Hour},
		{"claim where expires has no offset", exp(2 * time.Hour), now.Add(-3 * time.Hour).Format("2006-01-02T15:04:05"), agree, 2 * time.Hour},
		{"no offset and no claim", "t", now.Add(time.Hour).Format("2006-01-02T15:04:05"), agree, time.Hour},
		{"float claim", jwt(fmt.Sprintf(`{"exp":%d.5}`, now.Unix()+10)), "", agree, 10500 * time.Millisecond},
		{"claim as text", jwt(fmt.Sprintf(`{"exp":"%d"}`, now.Unix()+10)), "", agree, 10 * time.Second},
		{"past claim", exp(-time.Hour), "", agree, defaultLife},
		{"past expires", "t", in(-time.Second), agree, defaultLife},
		{"nothing", "t", "", agree, defaultLife},
		{"no JWT", "a.b.c", "", agree, defaultLife},
		{"claim beyond all years", jwt(`{"exp":1e300}`), "", agree, defaultLife},
		{"claim of a wrong type", jwt(`{"exp":[]}`), "", agree, defaultLife},
		{"no Date", "t", in(time.Hour), clocks{sent: now, received: now.Add(time.Second)}, time.Hour},
		{"past by our clock, no Date", "t", in(-time.Hour), clocks{sent: now, received: now}, defaultLife},
		{"Date half a second old", "t", in(time.Hour), clocks{sent: now.Add(900 * time.Millisecond), received: now.Add(time.Second), date: now}, time.Hour - 900*time.Millisecond},
		{"server behind", "t", in(-50 * time.Minute), clocks{sent: now, received: now, date: now.Add(-time.Hour)}, 10*time.Minute - time.Second},
		{"server ahead", "t", in(70 * time.Minute), clocks{sent: now, received: now, date: now.Add(time.Hour)}, 10*time.Minute - time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got, source := life(tc.token, tc.expires, tc.clocks); got != tc.want {
				t.Errorf("got %v by %s, want %v", got, source, tc.want)
			}
		})
	}
}

func TestGrantFollowsBothClocks(t *testing.T) {
	now := time.Now()
	g := newGrant("t", now, time.Hour, 0)
	if !g.usable(now.Add(59*time.Minute)) || g.usable(now.Add(time.Hour-10*time.Second)) {
		t.Error("margin of 30 s is not kept")
	}
	// A machine that slept: the monotonic clock has not moved, the wall clock has.
	if g.lasts(now, now.Add(2*time.Hour).UnixNano()) {
		t.Error("used after its end by the wall clock")
	}
	// A clock that was set back: the wall clock is early, the monotonic one is right.
	if g.lasts(now.Add(2*time.Hour), now.UnixNano()) {
		t.Error("used after its end by the monotonic clock")
	}
	if short := newGrant("t", now, 3*time.Second, 0.999); !short.renew.Before(short.until) {
		t.Error("the renewal is after the last use")
	}
	if endless := newGrant("t", now, 1<<63-1, 0); !endless.usable(now) || endless.expires.Before(now) {
		t.Error("an endless token is not usable")
	}
}
