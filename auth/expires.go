package auth

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"strings"
	"time"

	"plaspy-bridge/auth/isotime"
)

// jwtExpiry returns the `exp` of a JWT's payload (RFC 7519, section 4.1.4: seconds, perhaps with a
// fraction). The signature is the API's affair: the claim only says when to ask for another token.
func jwtExpiry(token string) (time.Time, bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return time.Time{}, false
	}
	var claims struct {
		Exp json.Number `json:"exp"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return time.Time{}, false
	}
	exp, err := claims.Exp.Float64()
	if err != nil || exp <= 0 || exp > 253402300799 { // the last second of the year 9999
		return time.Time{}, false
	}
	whole, part := math.Modf(exp)
	return time.Unix(int64(whole), int64(part*1e9)).UTC(), true
}

// clocks are the times of one answer: when the request left and the answer arrived by our
// clock, and the server's Date (zero if it sent none).
type clocks struct{ sent, received, date time.Time }

// skew returns by how much the server's clock is ahead of ours, and zero if the answer is explained without
// any: Date has whole seconds and was written at some moment between sending and receiving. Otherwise the
// estimate is the largest possible, which shortens lives rather than stretching them.
func (c clocks) skew() time.Duration {
	if c.date.IsZero() || (c.date.Before(c.received) && c.sent.Before(c.date.Add(time.Second))) {
		return 0
	}
	return c.date.Add(time.Second).Sub(c.sent)
}

// The sources of a token's life.
const (
	sourceExpires = "expires"
	sourceClaim   = "jwt"
	sourceDefault = "default"
)

// life returns how long a token lasts from c.sent on, and the source of that.
func life(token, expires string, c clocks) (time.Duration, string) {
	left := func(t time.Time) time.Duration { return t.Add(-c.skew()).Sub(c.sent) }
	stated, zoned, err := isotime.Parse(expires)
	claimed, ok := jwtExpiry(token)
	switch {
	case err == nil && (zoned || !ok) && left(stated) > 0:
		return left(stated), sourceExpires
	case ok && left(claimed) > 0:
		return left(claimed), sourceClaim
	case err == nil && left(stated) > 0:
		return left(stated), sourceExpires
	}
	return defaultLife, sourceDefault
}
