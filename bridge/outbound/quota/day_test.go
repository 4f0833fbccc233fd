package quota

import (
	"testing"
	"time"
)

// now is a quarter into a day.
var now = time.Date(2026, 1, 2, 6, 0, 0, 0, time.UTC)

func TestDayAdopts(t *testing.T) {
	today := int(now.Unix() / secondsPerDay)
	const limit, noon = 400, 43200
	for _, tc := range []struct {
		name     string
		have     Day
		stored   Reservation
		revision uint64
		want     Day
	}{
		{"nothing stored", Day{}, Reservation{}, 0, Day{day: int32(today), from: 21600}},
		{"deleted", Day{day: int32(today), used: 5, held: 9, revision: 3}, Reservation{}, 0, Day{day: int32(today), used: 5, held: 5}},
		{"its own", Day{day: int32(today), used: 5, held: 9, revision: 3}, Reservation{today, 7, 9}, 3, Day{day: int32(today), used: 5, held: 9, revision: 3}},
		{"after a restart", Day{}, Reservation{today, 7, 90}, 3, Day{day: int32(today), from: 7, used: 90, held: 90, revision: 3}},
		{"another's since", Day{day: int32(today), from: 9, used: 5, held: 9, revision: 3}, Reservation{today, 7, 30}, 4, Day{day: int32(today), from: 7, used: 30, held: 30, revision: 4}},
		{"with results used unreserved", Day{day: int32(today), used: 12, held: 9, revision: 3}, Reservation{today, 0, 30}, 4, Day{day: int32(today), used: 33, held: 30, revision: 4}},
		{"an older state of the store", Day{day: int32(today), used: 50, held: 60, revision: 9}, Reservation{today, 0, 30}, 4, Day{day: int32(today), used: 50, held: 30, revision: 4}},
		{"yesterday's", Day{}, Reservation{today - 1, 0, 400}, 3, Day{day: int32(today), from: 21600, revision: 3}},
		{"tomorrow's", Day{}, Reservation{today + 1, 0, 40}, 3, Day{day: int32(today + 1), used: 40, held: 40, revision: 3}},
		{"of a day far away", Day{}, Reservation{today + 2, 0, 1}, 3, Day{day: int32(today), used: 200, held: 200, revision: 3}},
		{"garbage", Day{}, decode([]byte("\x00")), 3, Day{day: int32(today), used: 200, held: 200, revision: 3}},
		{"another text", Day{}, decode([]byte(`{"day":"now"}`)), 3, Day{day: int32(today), used: 200, held: 200, revision: 3}},
		{"negative", Day{}, Reservation{today, 0, -1}, 3, Day{day: int32(today), used: 200, held: 200, revision: 3}},
		{"no second of a day", Day{}, Reservation{today, noon * 2, 1}, 3, Day{day: int32(today), used: 200, held: 200, revision: 3}},
		{"more than possible", Day{}, Reservation{today, 0, 1 << 40}, 3, Day{day: int32(today), used: 1 << 29, held: 1 << 29, revision: 3}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := tc.have
			got.adopt(now, limit, tc.stored, tc.revision)
			if got != tc.want {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}

// TestDayAfterClockWasAhead: a count for a day far ahead was made with a
// wrong clock. It must not keep the device unpolled until that day comes.
func TestDayAfterClockWasAhead(t *testing.T) {
	const limit = 1440
	for _, tc := range []struct {
		name  string
		ahead time.Duration
		want  time.Duration // the longest wait after the clock is right
	}{
		{"more than a year", 400 * 24 * time.Hour, 5 * time.Minute},
		{"two days", 48 * time.Hour, 5 * time.Minute},
		// A replica with its clock some minutes ahead has begun tomorrow: its
		// count is kept, and the head start of the day with it.
		{"into tomorrow", 18 * time.Hour, 18*time.Hour + 5*time.Minute},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var d Day
			d.Add(now.Add(tc.ahead), limit/4) // the whole head start
			if wait := d.Next(now, limit).Sub(now); wait > tc.want {
				t.Errorf("the device waits for %v", wait)
			}
			if left := d.Left(now, limit); left != limit-limit/4 {
				t.Errorf("%d results are left, want %d: those used count", left, limit-limit/4)
			}
			for day := range 3 {
				later := now.Add(time.Duration(day+1) * 24 * time.Hour)
				if at := d.Next(later, limit); at.After(later) {
					t.Errorf("%d days later the device waits for %v", day+1, at.Sub(later))
				}
			}
		})
	}
}

// FuzzReservation checks that for any content of the bucket at most the limit is used,
// and the device is polled again by the end of the next day.
func FuzzReservation(f *testing.F) {
	f.Add([]byte(`{"day":20000,"from":0,"reserved":45}`), uint64(3))
	f.Add([]byte(`{"day":1e9}`), uint64(1))
	f.Add([]byte(`[]`), uint64(9))
	f.Fuzz(func(t *testing.T, value []byte, revision uint64) {
		const limit = 100
		var d Day
		d.adopt(now, limit, decode(value), revision)
		if d.used < 0 || d.held < 0 || d.from < 0 || d.from >= secondsPerDay {
			t.Fatalf("%q: %+v", value, d)
		}
		if at := d.Next(now, limit); at.Sub(now) > 48*time.Hour {
			t.Fatalf("%q: not before %v", value, at)
		}
	})
}
