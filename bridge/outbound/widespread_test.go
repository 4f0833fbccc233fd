package outbound

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestWidespread(t *testing.T) {
	fail := errors.New("answer is not JSON")
	tests := []struct {
		name    string
		devices int
		do      func(w *widespread)
		polls   int // 0: not widespread
	}{
		{"nothing", 5, func(*widespread) {}, 0},
		{"every device", 5, func(w *widespread) {
			for i := range 12 {
				w.failed(fmt.Sprint(i%5), 5, fail)
			}
		}, 12},
		{"too few polls", 5, func(w *widespread) {
			for i := range widespreadPolls - 1 {
				w.failed(fmt.Sprint(i), 5, fail)
			}
		}, 0},
		{"one device of many", 5, func(w *widespread) {
			for range 100 {
				w.failed("a", 5, fail)
			}
		}, 0},
		{"the only device", 1, func(w *widespread) {
			for range widespreadPolls {
				w.failed("a", 1, fail)
			}
		}, widespreadPolls},
		{"one success between", 5, func(w *widespread) {
			for i := range 100 {
				w.failed(fmt.Sprint(i), 5, fail)
				if i%9 == 0 {
					w.worked()
				}
			}
		}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := &widespread{log: slog.New(slog.DiscardHandler)}
			tt.do(w)
			if got := w.state(); got.Polls != tt.polls || (got.Reason != "") != (tt.polls > 0) {
				t.Errorf("got %+v, want %d polls", got, tt.polls)
			}
		})
	}
}

func TestWidespreadIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		w := &widespread{log: slog.New(slog.NewTextHandler(&out, nil))}
		for range 2 {
			for i := range 500 {
				w.failed(fmt.Sprint(i), 500, errors.New("nonsense"))
				time.Sleep(time.Millisecond)
			}
			w.worked()
			w.worked()
		}
		if a, b := strings.Count(out.String(), "polls of all devices are failing"), strings.Count(out.String(), "polls succeed again"); a != 2 || b != 2 {
			t.Errorf("%d and %d lines, want 2 of each:\n%s", a, b, out.String())
		}
		if !strings.Contains(out.String(), "count=500 elapsed=500ms") {
			t.Errorf("the end has no count: %s", out.String())
		}
	})
}
