package publisher

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func TestJudge(t *testing.T) {
	api := func(code int, number jetstream.ErrorCode) error {
		return &jetstream.APIError{Code: code, ErrorCode: number, Description: "x"}
	}
	for _, tt := range []struct {
		name string
		err  error
		want refusal
		full bool
	}{
		{"no answer", jetstream.ErrAsyncPublishTimeout, again, false},
		{"no stream", jetstream.ErrNoStreamResponse, again, false},
		{"something else", errors.New("x"), again, false},
		{"larger than the connection takes", nats.ErrMaxPayload, never, false},
		{"larger than the stream takes", api(400, 10054), never, false},
		{"headers too large", api(400, 10097), never, false},
		{"fence", api(400, 10071), fenced, false},
		{"fence, in a cluster", api(400, 10164), fenced, false},
		{"account limit", api(400, 10002), again, true},
		{"store full", api(503, 10023), again, true},
		{"storage limit", api(500, 10047), again, true},
		{"memory limit", api(500, 10028), again, true},
		{"stream full", api(503, 10077), again, true},
		{"sealed", api(400, 10109), again, false},
		{"another refusal of a message", api(400, 10165), refused, false},
		{"trouble of the server", api(500, 10052), again, false},
	} {
		if got := judge(tt.err); got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
		}
		large, headers := TooLarge(tt.err)
		if large != (tt.want == never) || headers != strings.HasPrefix(tt.name, "headers") {
			t.Errorf("%s: too large %t, by its headers %t", tt.name, large, headers)
		}
		if got := Full(tt.err); (got != "") != tt.full {
			t.Errorf("%s: full %q", tt.name, got)
		}
		if reason(tt.err) == "" {
			t.Errorf("%s: no reason", tt.name)
		}
	}
}

// TestRetries: each flight has a delay of its own. When the stream answers again,
// flights that failed for a common reason are due at once, refused ones are not.
func TestRetries(t *testing.T) {
	now := day0
	var r retries
	common, own := &flight{}, &flight{refused: 1}
	for range 8 { // to the longest delay
		r.add(common, now)
		r.add(own, now)
		r.take(now.Add(time.Hour))
	}
	r.add(common, now)
	r.add(own, now)
	if wait, ok := r.next(now); !ok || wait != maxRetry {
		t.Errorf("next in %v, %t, want %v", wait, ok, maxRetry)
	}
	if due := r.take(now.Add(maxRetry - 1)); len(due) != 0 {
		t.Errorf("%d due before their time", len(due))
	}
	r.answered(now)
	if due := r.take(now); len(due) != 1 || due[0] != common {
		t.Errorf("due after an answer: %v, want the one that was not refused", due)
	}
	r.add(common, now)
	if wait, _ := r.next(now); wait > 2*minRetry {
		t.Errorf("after an answer the delay is %v", wait)
	}
	if due := r.take(now.Add(maxRetry)); len(due) != 2 || len(r.list) != 0 {
		t.Errorf("%d due and %d left, want 2 and 0", len(due), len(r.list))
	}
}

func TestDeviceSource(t *testing.T) {
	for _, tt := range []struct{ url, token, want string }{
		{"https://api.plaspy.com/api/devices/dev%201%2F%C3%B1", "dev=201=2F=C3=B1", "https://api.plaspy.com/api/devices/dev=201=2F=C3=B1"},
		{"https://api.plaspy.com/api/devices/d", "d", "https://api.plaspy.com/api/devices/d"},
		{"http://127.0.0.1/a%20b/api/devices/%25", "=25", "http://127.0.0.1/a=20b/api/devices/=25"},
		{"", "d", ""},
	} {
		if got := deviceSource(tt.url, tt.token); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.url, got, tt.want)
		}
	}
}
