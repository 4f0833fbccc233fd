package schedule_test

import (
	"encoding/csv"
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"testing"
	"time"
)

// busTrace is a day of 329 Austin city buses (CapMetro's open data by way of the CapMetrics
// repository, MIT licence), read from beside the repository and not part of it. The trackers' own
// times are in it; how long each upload took is not, so that is drawn, from 1 to 6 s.
const busTrace = "../../../../shared/traces/capmetro_20170321.csv"

// buses returns the part of the trace in which all of the fleet reports, from its fifth hour on. It
// skips the test if the trace is missing.
func buses(tb testing.TB) []tracker {
	tb.Helper()
	f, err := os.Open(filepath.FromSlash(busTrace))
	if errors.Is(err, fs.ErrNotExist) {
		tb.Skipf("the bus trace is not at %s", busTrace)
	}
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	rows := csv.NewReader(f)
	if _, err := rows.Read(); err != nil {
		tb.Fatal(err)
	}
	const begin = 4 * time.Hour
	r := rand.New(rand.NewPCG(7, 7))
	fixes := make(map[string][]fix)
	var first int64
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			tb.Fatal(err)
		}
		at, err := strconv.ParseInt(row[1], 10, 64)
		if err != nil {
			tb.Fatal(err)
		}
		speed, err := strconv.ParseFloat(row[4], 32)
		if err != nil {
			tb.Fatal(err)
		}
		if first == 0 || at < first {
			first = at
		}
		fixes[row[0]] = append(fixes[row[0]], fix{stamp: time.Duration(at) * time.Second, speed: float32(speed), input: -1})
	}
	var out []tracker
	for _, id := range slices.Sorted(maps.Keys(fixes)) { // the draws below are in this order
		fs := fixes[id]
		sort.Slice(fs, func(i, j int) bool { return fs[i].stamp < fs[j].stamp })
		d := tracker{id: id}
		for _, f := range fs {
			f.stamp -= time.Duration(first)*time.Second + begin
			f.visible = f.stamp + seconds(1+5*r.Float64())
			if n := len(d.fixes); n > 0 {
				f.visible = max(f.visible, d.fixes[n-1].visible+time.Millisecond)
			}
			d.fixes = append(d.fixes, f)
		}
		out = append(out, d)
	}
	return out
}
