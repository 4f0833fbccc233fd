package embedded

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestLastingError(t *testing.T) {
	created := func(n, of int) string { // one stream after the other is being created
		if n >= of {
			return ""
		}
		return fmt.Sprint("stream ", n/5, " could not be recovered")
	}
	for _, tt := range []struct {
		name   string
		check  func(n int) string
		want   string
		within time.Duration
	}{
		{"none", func(int) string { return "" }, "", 0},
		{"one stream is being created", func(n int) string { return created(n, 5) }, "", time.Second},
		{"one stream is being created on a slow disk", func(n int) string { return created(min(n, 4)+n/50, 5) }, "", 3 * time.Second},
		{"ten streams are being created", func(n int) string { return created(n, 50) }, "", 3 * time.Second},
		{"a stream is broken", func(int) string { return "broken" }, "broken", 3 * time.Second},
		{"a stream is broken after others were created", func(n int) string {
			if n < 10 {
				return created(n, 10)
			}
			return "broken"
		}, "broken", 3 * time.Second},
		{"several streams are broken", func(n int) string { return fmt.Sprint("stream ", n%2) }, "stream 1", 3 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began, n := time.Now(), -1
				got := lastingError(t.Context(), func() string { n++; return tt.check(n) })
				if took := time.Since(began); got != tt.want || took > tt.within {
					t.Errorf("got %q after %v, want %q within %v", got, took, tt.want, tt.within)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if got := lastingError(ctx, func() string { return "broken" }); got != "" || time.Since(began) != time.Second {
			t.Errorf("got %q after %v, want nothing when the context ends", got, time.Since(began))
		}
	})
}
