package gap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"plaspy-bridge/bridge/plaspy"
)

// TestPieces asks for an hour of which an answer holds only so much.
func TestPieces(t *testing.T) {
	r := New(Options{}, nil)
	start := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	refused := &plaspy.Error{Endpoint: "locations", Status: 500, Message: "uncontrolled error"}
	large := &plaspy.Error{Endpoint: "locations", Status: 200, Message: "answer is larger", Err: plaspy.ErrTooLarge}
	for _, tc := range []struct {
		name   string
		length time.Duration
		fits   time.Duration // the range of one answer
		bytes  int           // of each answer
		fails  int           // the request that does; 0: none
		want   string        // the requests, in minutes
		until  time.Duration
		err    error
	}{
		{"all at once", time.Hour, time.Hour, 1, 0, "0-60", time.Hour, nil},
		{"halved", time.Hour, 40 * time.Minute, 1, 0, "0-60 0-30 30-60", time.Hour, nil},
		{"twice", time.Hour, 15 * time.Minute, 1, 0, "0-60 0-30 0-15 15-30 30-45 45-60", time.Hour, nil},
		{"not for ever", 100 * time.Hour, time.Minute, 1, 0, "0-6000 0-3000 0-1500 0-750 0-375 0-187.5 0-93.75 0-46.875 0-23.4375 0-11.71875 0-5.859375 0-2.9296875 0-1.46484375 0-0.732421875 0.732421875-1.46484375 1.46484375-2.197265625", 2*time.Minute + 11*time.Second + 835937500*time.Nanosecond, nil},
		{"not too much at once", time.Hour, 10 * time.Minute, maxPieceBytes / 2, 0, "0-60 0-30 0-15 0-7.5 7.5-15", 15 * time.Minute, nil},
		{"one fails", time.Hour, 30 * time.Minute, 1, 3, "0-60 0-30 30-60", 30 * time.Minute, refused},
		{"the first fails", time.Hour, time.Hour, 1, 1, "0-60", 0, refused},
		{"a second too full", 4 * time.Second, 0, 1, 0, "0-0.06666666666666667 0-0.03333333333333333 0-0.016666666666666666", 0, plaspy.ErrTooLarge},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var asked []string
			var taken time.Time
			ask := func(_ context.Context, _ string, body []byte, _ plaspy.PostOptions) (plaspy.Answer, error) {
				var q struct{ From, To time.Time }
				if err := json.Unmarshal(body, &q); err != nil {
					t.Fatal(err)
				}
				asked = append(asked, fmt.Sprintf("%v-%v", q.From.Sub(start).Minutes(), q.To.Sub(start).Minutes()))
				switch {
				case len(asked) == tc.fails:
					return plaspy.Answer{}, refused
				case q.To.Sub(q.From) > tc.fits:
					return plaspy.Answer{}, large
				}
				taken = q.To
				return plaspy.Answer{Body: make([]byte, tc.bytes)}, nil
			}
			until, err := r.pieces(t.Context(), start, start.Add(tc.length), ask, "d", func([]byte) error { return nil })
			if got := strings.Join(asked, " "); got != tc.want {
				t.Errorf("asked\n%s, want\n%s", got, tc.want)
			}
			if until.Sub(start) != tc.until || !errors.Is(err, tc.err) {
				t.Errorf("got up to %v with %v, want %v with %v", until.Sub(start), err, tc.until, tc.err)
			}
			if tc.until > 0 && !until.Equal(taken) {
				t.Errorf("got up to %v, and took answers up to %v", until, taken)
			}
		})
	}
}
