package auth

import (
	"log/slog"
	"sync/atomic"
	"time"

	"plaspy-bridge/auth/redact"
)

// Token is one token as the API issued it. It is comparable: two are equal if they came from the same
// answer of the API. However it is printed, marshalled or logged, it shows "[redacted]". The zero value
// holds no token.
type Token struct{ g *grant }

// Expires returns when the token ends by this machine's clock; zero for the zero Token.
func (t Token) Expires() time.Time {
	if t.g == nil {
		return time.Time{}
	}
	return t.g.expires
}

// String returns a placeholder.
func (t Token) String() string { return redact.Placeholder }

// GoString returns a placeholder.
func (t Token) GoString() string { return redact.Placeholder }

// MarshalText returns a placeholder.
func (t Token) MarshalText() ([]byte, error) { return []byte(redact.Placeholder), nil }

// LogValue returns a placeholder.
func (t Token) LogValue() slog.Value { return slog.StringValue(redact.Placeholder) }

// grant is one token and its life. The fields in the first group are set before it is shared.
type grant struct {
	header  []string
	issued  time.Time
	renew   time.Time // when Run fetches the next one
	until   time.Time // handed out before this only
	wall    int64     // until in Unix nanoseconds: the wall clock also runs while the machine sleeps
	expires time.Time
	source  string
	follows bool // the token before it worked

	worked    atomic.Bool // an answer has shown that the API takes it
	doubted   atomic.Bool // it was refused, and not accepted since ...
	doubtedAt time.Time   // ... this time; guarded by Manager.mu
	survived  bool        // it was accepted after it had been refused; guarded by Manager.mu
}

// usable reports whether the grant may still be sent at now.
func (g *grant) usable(now time.Time) bool {
	return g != nil && g.lasts(now, now.UnixNano())
}

// lasts asks both clocks: the monotonic one stands still while a machine is suspended, the other one may be
// set back.
func (g *grant) lasts(now time.Time, wall int64) bool {
	return now.Before(g.until) && wall < g.wall
}

const (
	defaultLife = 10 * time.Minute
	maxLife     = 365 * 24 * time.Hour // beyond it a life is as good as endless, and arithmetic stays in range
	maxMargin   = 30 * time.Second
)

// newGrant lays out a token's life from start. spread in [0, 1) places the renewal within its range, so
// that replicas started together do not renew together.
func newGrant(value string, start time.Time, life time.Duration, spread float64) *grant {
	life = min(life, maxLife)
	margin := min(life/10, maxMargin)
	until := start.Add(life - margin)
	return &grant{
		header:  []string{"Bearer " + value},
		issued:  start,
		renew:   start.Add(time.Duration(float64(life) * (0.75 + 0.1*spread))),
		until:   until,
		wall:    until.UnixNano(),
		expires: start.Add(life),
	}
}
