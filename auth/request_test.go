package auth_test

import (
	"net/http"
	"testing"
	"time"

	"plaspy-bridge/auth"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tc := range []struct {
		name, value string
		date        string
		want        time.Duration
		has         bool
	}{
		{"absent", "", "", 0, false},
		{"seconds", "120", "", 2 * time.Minute, true},
		{"zero", "0", "", 0, true},
		{"spaces", " 5 ", "", 5 * time.Second, true},
		{"negative", "-5", "", 0, false},
		{"fraction", "1.5", "", 0, false},
		{"garbage", "soon", "", 0, false},
		{"huge", "86401", "", 24 * time.Hour, true},
		{"beyond int64", "99999999999999999999", "", 24 * time.Hour, true},
		{"below int64", "-99999999999999999999", "", 0, false},
		{"date", "Fri, 02 Jan 2026 03:05:05 GMT", "", time.Minute, true},
		{"old date form", "Friday, 02-Jan-26 03:05:05 GMT", "", time.Minute, true},
		{"past date", "Fri, 02 Jan 2026 03:00:00 GMT", "", 0, true},
		{"far date", "Sat, 02 Jan 2027 03:00:00 GMT", "", 24 * time.Hour, true},
		{"date by a clock that is ahead", "Fri, 02 Jan 2026 04:05:05 GMT", "Fri, 02 Jan 2026 04:04:05 GMT", time.Minute, true},
		{"date by a clock that is behind", "Fri, 02 Jan 2026 02:05:05 GMT", "Fri, 02 Jan 2026 02:04:05 GMT", time.Minute, true},
		{"a Date that cannot be read", "Fri, 02 Jan 2026 03:05:05 GMT", "today", time.Minute, true},
		{"plus sign", "+5", "", 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, has := auth.RetryAfter(http.Header{"Retry-After": {tc.value}, "Date": {tc.date}}, now)
			if got != tc.want || has != tc.has {
				t.Errorf("got %v %v, want %v %v", got, has, tc.want, tc.has)
			}
		})
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, seed := range []string{"120", "-1", "Fri, 02 Jan 2026 03:05:05 GMT", "1e9", "Sun Nov  6 08:49:37 1994"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, v string) {
		got, has := auth.RetryAfter(http.Header{"Retry-After": {v}}, time.Now())
		if got < 0 || got > 24*time.Hour || !has && got != 0 {
			t.Errorf("%q: got %v %v", v, got, has)
		}
	})
}
