package query

import (
	"context"
	"errors"
	"net/http"
	"testing"
)

// TestPollErrors checks which replica answers a poll, and how.
func TestPollErrors(t *testing.T) {
	t.Parallel()
	stopping := make(chan struct{})
	close(stopping)
	for name, tt := range map[string]struct {
		ours   bool
		err    error
		silent bool
		code   int
	}{
		"ours":                         {true, nil, false, http.StatusOK},
		"ours, held back":              {true, Refuse(http.StatusServiceUnavailable, "held"), false, http.StatusServiceUnavailable},
		"unknown":                      {false, Refuse(http.StatusNotFound, "unknown"), false, http.StatusNotFound},
		"another replica's":            {false, Elsewhere(), true, 0},
		"another replica's, at a stop": {false, Refuse(http.StatusServiceUnavailable, "stopping"), true, 0},
		"moved while it was ours":      {true, Elsewhere(), true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := &Service{ending: stopping, opt: Options{
				Ours: func(string) bool { return tt.ours },
				Poll: func(context.Context, string) ([]byte, error) { return nil, tt.err },
			}}
			_, err := s.poll(t.Context(), "a", nil)
			code := http.StatusOK
			if err != nil {
				code = judge(t.Context(), err).code
			}
			if silent := errors.Is(err, errSilent); silent != tt.silent || !silent && code != tt.code {
				t.Errorf("got %v, silent %v, want code %d, silent %v", err, silent, tt.code, tt.silent)
			}
		})
	}
}
