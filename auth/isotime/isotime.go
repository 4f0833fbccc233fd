// Package isotime reads the times of APIs, which spell ISO 8601 in many ways.
package isotime

import (
	"errors"
	"strings"
	"time"
)

var errTime = errors.New("not an ISO 8601 time")

// Parse reads an ISO 8601 date and time in any spelling that APIs are known to use: extended or basic,
// T, t or a space between date and time, an hour of one digit before a colon, with or without seconds, a fraction
// behind a point or a comma (digits beyond the ninth are cut off), and Z, z, +hh:mm, +hhmm, +hh or nothing for the
// offset. Nothing means UTC, and zoned is false. A date alone is its midnight in UTC. A leap second is the second
// before it.
func Parse(s string) (t time.Time, zoned bool, err error) {
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
