package message

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

// The API may write a time or a position in another way than it was given.
const (
	samePlace = 1e-6 // degrees, about a tenth of a metre
	sameTime  = time.Millisecond
)

// Fix is the time and place of a location. Lat and Lon are degrees, WGS 84.
type Fix struct {
	At       time.Time
	Lat, Lon float64
}

// Same reports whether two fixes are the same time and place, small differences
// of spelling aside.
func (f Fix) Same(g Fix) bool {
	return f.At.Sub(g.At).Abs() < sameTime && math.Abs(f.Lat-g.Lat) < samePlace && math.Abs(f.Lon-g.Lon) < samePlace
}

// String writes a fix as [HeaderPosted] has it.
func (f Fix) String() string {
	return f.At.UTC().Format(time.RFC3339Nano) + " " + strconv.FormatFloat(f.Lat, 'f', -1, 64) + " " + strconv.FormatFloat(f.Lon, 'f', -1, 64)
}

// ParseFix reads a fix as String writes it.
func ParseFix(s string) (Fix, error) {
	parts := strings.Fields(s)
	if len(parts) != 3 {
		return Fix{}, errors.New("posted fix does not have three parts")
	}
	at, timeErr := time.Parse(time.RFC3339Nano, parts[0])
	lat, latErr := strconv.ParseFloat(parts[1], 64)
	lon, lonErr := strconv.ParseFloat(parts[2], 64)
	return Fix{at, lat, lon}, errors.Join(timeErr, latErr, lonErr)
}
