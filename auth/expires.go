package auth

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"time"
)

var errTime = errors.New("not an ISO 8601 time")

// ParseTime reads an ISO 8601 date and time in any spelling that APIs are known to use: extended or basic,
// T, t or a space between date and time, an hour of one digit before a colon, with or without seconds, a fraction
// behind a point or a comma (digits beyond the ninth are cut off), and Z, z, +hh:mm, +hhmm, +hh or nothing for the
// offset. Nothing means UTC, and zoned is false. A date alone is its midnight in UTC. A leap second is the second
// before it.
func ParseTime(s string) (t time.Time, zoned bool, err error) {
	p := parser{rest: strings.TrimSpace(s)}
	year := p.number(4)
	extended := p.skip("-")
	month := p.number(2)
	p.require(!extended || p.skip("-"))
	day := p.number(2)
	var hour, minute, second, nanos int
	offset := 0
	if p.rest != "" {
		p.require(p.skip("Tt "))
		hour, minute, second, nanos = p.clock()
		offset, zoned = p.zone()
	}
	p.require(p.rest == "" && month >= 1 && month <= 12 && day >= 1 && hour <= 23 && minute <= 59 && second <= 60)
	if p.bad {
		return time.Time{}, false, errTime
	}
	t = time.Date(year, time.Month(month), day, hour, minute, min(second, 59), nanos, time.UTC)
	if t.Day() != day {
		return time.Time{}, false, errTime // such as 30 February
	}
	return t.Add(-time.Duration(offset) * time.Second), zoned, nil
}

// parser reads from the left; after the first misfit, bad is set and its results mean nothing.
type parser struct {
	rest string
	bad  bool
}

func (p *parser) require(ok bool) { p.bad = p.bad || !ok }

// skip drops the next byte if it is one of chars.
func (p *parser) skip(chars string) bool {
	if p.rest == "" || strings.IndexByte(chars, p.rest[0]) < 0 {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

// number reads exactly width digits.
func (p *parser) number(width int) (n int) {
	if len(p.rest) < width {
		p.bad = true
		return 0
	}
	for _, c := range []byte(p.rest[:width]) {
		p.require(c >= '0' && c <= '9')
		n = n*10 + int(c-'0')
	}
	p.rest = p.rest[width:]
	return n
}

func (p *parser) clock() (hour, minute, second, nanos int) {
	if len(p.rest) > 1 && p.rest[1] == ':' {
		hour = p.number(1) // as in T9:05:00
	} else {
		hour = p.number(2)
	}
	p.skip(":")
	minute = p.number(2)
	if colon := p.skip(":"); colon || (p.rest != "" && p.rest[0] >= '0' && p.rest[0] <= '9') {
		second = p.number(2)
		if p.skip(".,") {
			nanos = p.fraction()
		}
	}
	return hour, minute, second, nanos
}

func (p *parser) fraction() int {
	n, digits := 0, 0
	for ; p.rest != "" && p.rest[0] >= '0' && p.rest[0] <= '9'; digits++ {
		if digits < 9 {
			n = n*10 + int(p.rest[0]-'0')
		}
		p.rest = p.rest[1:]
	}
	p.require(digits > 0)
	for ; digits < 9; digits++ {
		n *= 10
	}
	return n
}

// zone returns the offset from UTC in seconds.
func (p *parser) zone() (offset int, zoned bool) {
	if p.rest == "" {
		return 0, false
	}
	if p.skip("Zz") {
		return 0, true
	}
	sign := 1
	if p.skip("-") {
		sign = -1
	} else {
		p.require(p.skip("+"))
	}
	hours, minutes := p.number(2), 0
	if colon := p.skip(":"); colon || p.rest != "" {
		minutes = p.number(2)
	}
	p.require(hours <= 23 && minutes <= 59)
	return sign * (hours*3600 + minutes*60), true
}

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
	stated, zoned, err := ParseTime(expires)
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
