package widespread

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
		do      func(w *Failures)
		polls   int // 0: not widespread
	}{
		{"nothing", 5, func(*Failures) {}, 0},
		{"every device", 5, func(w *Failures) {
			for i := range 12 {
				w.Failed(fmt.Sprint(i%5), 5, fail)
			}
		}, 12},
		{"too few polls", 5, func(w *Failures) {
			for i := range fewestPolls - 1 {
				w.Failed(fmt.Sprint(i), 5, fail)
			}
		}, 0},
		{"one device of many", 5, func(w *Failures) {
			for range 100 {
				w.Failed("a", 5, fail)
			}
		}, 0},
		{"the only device", 1, func(w *Failures) {
			for range fewestPolls {
				w.Failed("a", 1, fail)
			}
		}, fewestPolls},
		{"one success between", 5, func(w *Failures) {
			for i := range 100 {
				w.Failed(fmt.Sprint(i), 5, fail)
				if i%9 == 0 {
					w.Worked()
				}
			}
		}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := New(slog.New(slog.DiscardHandler))
			tt.do(w)
			if got := w.State(); got.Polls != tt.polls || (got.Reason != "") != (tt.polls > 0) {
				t.Errorf("got %+v, want %d polls", got, tt.polls)
			}
		})
	}
}

func TestWidespreadIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		w := New(slog.New(slog.NewTextHandler(&out, nil)))
		for range 2 {
			for i := range 500 {
				w.Failed(fmt.Sprint(i), 500, errors.New("nonsense"))
				time.Sleep(time.Millisecond)
			}
			w.Worked()
			w.Worked()
		}
		if a, b := strings.Count(out.String(), "polls of all devices are failing"), strings.Count(out.String(), "polls succeed again"); a != 2 || b != 2 {
			t.Errorf("%d and %d lines, want 2 of each:\n%s", a, b, out.String())
		}
		if !strings.Contains(out.String(), "count=500 elapsed=500ms") {
			t.Errorf("the end has no count: %s", out.String())
		}
	})
}
