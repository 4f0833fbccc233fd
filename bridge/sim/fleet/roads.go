package fleet

import "math"

// The city: blocks of about 180 m, every fifth street an avenue, the whole
// turned by some degrees as cities between hills are. It is 14 km by 18 km.
const (
	southWestLat = 4.560
	southWestLon = -74.180
	block        = 180.0 // metres between crossings, before the unevenness
	uneven       = 16.0  // metres a crossing lies off its place, at most
	columns      = 78
	rows         = 100
	avenueEvery  = 5
	turn         = 11.0 // degrees clockwise that a street "north" points off north

	metresPerDegree = 111_195.0 // of latitude, on a sphere of 6371 km
)

// The turn of the city's streets against north, and the length of a degree of
// longitude there. At this latitude and size the earth is flat enough.
var (
	turnSin, turnCos   = math.Sincos(turn * math.Pi / 180)
	metresPerDegreeLon = metresPerDegree * math.Cos(southWestLat*math.Pi/180)
)

// crossing is the meeting of two streets, by column and row.
type crossing struct{ col, row int32 }

// offset is a crossing's place in metres east and north of the south-west
// corner, before the city's turn.
func (c crossing) offset() (x, y float64) {
	h := mix(uint64(uint32(c.col))<<32 | uint64(uint32(c.row)))
	dx := float64(h&0xffff)/0x8000 - 1
	dy := float64(h>>16&0xffff)/0x8000 - 1
	return float64(c.col)*block + dx*uneven, float64(c.row)*block + dy*uneven
}

// step is the next crossing in a direction.
func (c crossing) step(d heading, n int32) crossing {
	switch d {
	case north:
		c.row += n
	case south:
		c.row -= n
	case east:
		c.col += n
	case west:
		c.col -= n
	}
	return c
}

// heading is one of the four ways to leave a crossing.
type heading uint8

const (
	north heading = iota
	east
	south
	west
)

// speedLimit is the speed limit of the street in km/h, for leaving the
// crossing in that direction.
func (c crossing) speedLimit(d heading) float64 {
	line := c.col
	if d == east || d == west {
		line = c.row
	}
	if line%avenueEvery == 0 {
		return 70
	}
	return 45
}

// degrees turns an offset into latitude and longitude, WGS 84.
func degrees(x, y float64) (lat, lon float64) {
	e := x*turnCos + y*turnSin
	n := y*turnCos - x*turnSin
	return southWestLat + n/metresPerDegree, southWestLon + e/metresPerDegreeLon
}

// bearing is the course from one offset to another, degrees clockwise from
// north, 0 to 360.
func bearing(x0, y0, x1, y1 float64) float64 {
	b := math.Atan2(x1-x0, y1-y0)*180/math.Pi + turn
	return math.Mod(b+360, 360)
}

// forbidden reports whether a crossing lies in one of the zones that the
// simulated account has fenced off: four of them, some blocks across.
func (c crossing) forbidden() bool {
	in := func(v, lo int32) bool { return v >= lo && v < lo+6 }
	return (in(c.col, 17) || in(c.col, 52)) && (in(c.row, 23) || in(c.row, 71))
}

// mix spreads a number's bits over a word (the finalizer of SplitMix64).
func mix(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
