package feed

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// bbox is a bounding box in degrees, WGS 84, as in RFC 7946 section 5.
type bbox struct{ west, south, east, north float64 }

var errBBox = errors.New("bbox must be west,south,east,north in degrees: longitudes -180 to 180, latitudes -90 to 90, south not above north")

// parseBBox parses west,south,east,north.
func parseBBox(text string) (bbox, error) {
	fields := strings.Split(text, ",")
	if len(fields) != 4 {
		return bbox{}, errBBox
	}
	var n [4]float64
	for i, field := range fields {
		limit := 180.0
		if i%2 == 1 {
			limit = 90
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(field), 64)
		if err != nil || !(math.Abs(v) <= limit) { // this form also refuses NaN
			return bbox{}, errBBox
		}
		n[i] = v
	}
	b := bbox{n[0], n[1], n[2], n[3]}
	if b.south > b.north {
		return bbox{}, errBBox
	}
	return b, nil
}

// has reports whether a position lies in the box or on its edge. If west is greater
// than east, the box crosses the antimeridian.
func (b bbox) has(lat, lon float64) bool {
	if lat < b.south || lat > b.north {
		return false
	}
	if math.Abs(lon) == 180 { // one meridian with two names
		return b.hasLon(180) || b.hasLon(-180)
	}
	return b.hasLon(lon)
}

func (b bbox) hasLon(lon float64) bool {
	if b.west > b.east {
		return lon >= b.west || lon <= b.east
	}
	return lon >= b.west && lon <= b.east
}
