package outbound

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/publisher/natstest"
)

// TestPieces asks for an hour of which an answer holds only so much.
func TestPieces(t *testing.T) {
	p, _ := idlePool(t)
	start := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	refused := &plaspy.Error{Endpoint: "locations", Status: 500, Message: "uncontrolled error"}
	large := &plaspy.Error{Endpoint: "locations", Status: 200, Message: "answer is larger", Err: plaspy.ErrTooLarge}
	for _, tc := range []struct {
		name   string
		length time.Duration
		fits   time.Duration // what one answer holds
		bytes  int           // of each answer
		fails  int           // the request that does; 0: none
		want   string        // the requests, in minutes
		until  time.Duration
		err    error
	}{
		{"all at once", time.Hour, time.Hour, 1, 0, "0-60", time.Hour, nil},
		{"halved", time.Hour, 40 * time.Minute, 1, 0, "0-60 0-30 30-60", time.Hour, nil},
		{"twice", time.Hour, 15 * time.Minute, 1, 0, "0-60 0-30 0-15 15-30 30-45 45-60", time.Hour, nil},
		{"not for ever", 100 * time.Hour, time.Minute, 1, 0, "0-6000 0-3000 0-1500 0-750 0-375 0-187.5 0-93.75 0-46.875 0-23.4375 0-11.71875 0-5.859375 0-2.9296875 0-1.46484375 0-0.732421875 0.732421875-1.46484375 1.46484375-2.197265625", 2*time.Minute + 11*time.Second + 835937500*time.Nanosecond, nil},
		{"not too much at once", time.Hour, 10 * time.Minute, maxPieceBytes / 2, 0, "0-60 0-30 0-15 0-7.5 7.5-15", 15 * time.Minute, nil},
		{"one fails", time.Hour, 30 * time.Minute, 1, 3, "0-60 0-30 30-60", 30 * time.Minute, refused},
		{"the first fails", time.Hour, time.Hour, 1, 1, "0-60", 0, refused},
		{"a second too full", 4 * time.Second, 0, 1, 0, "0-0.06666666666666667 0-0.03333333333333333 0-0.016666666666666666", 0, plaspy.ErrTooLarge},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var asked []string
			var taken time.Time
			ask := func(_ context.Context, body []byte) (plaspy.Answer, error) {
				var r struct{ From, To time.Time }
				if err := json.Unmarshal(body, &r); err != nil {
					t.Fatal(err)
				}
				asked = append(asked, fmt.Sprintf("%v-%v", r.From.Sub(start).Minutes(), r.To.Sub(start).Minutes()))
				switch {
				case len(asked) == tc.fails:
					return plaspy.Answer{}, refused
				case r.To.Sub(r.From) > tc.fits:
					return plaspy.Answer{}, large
				}
				taken = r.To
				return plaspy.Answer{Body: make([]byte, tc.bytes)}, nil
			}
			until, err := p.pieces(t.Context(), start, start.Add(tc.length), ask, func([]byte) error { return nil })
			if got := strings.Join(asked, " "); got != tc.want {
				t.Errorf("asked\n%s, want\n%s", got, tc.want)
			}
			if until.Sub(start) != tc.until || !errors.Is(err, tc.err) {
				t.Errorf("got up to %v with %v, want %v with %v", until.Sub(start), err, tc.until, tc.err)
			}
			if tc.until > 0 && !until.Equal(taken) {
				t.Errorf("got up to %v, and took answers up to %v", until, taken)
			}
		})
	}
}

// TestLongGap: a gap that no turn can read is published in order over several,
// with the alerts that lay in it, and the newest fix last.
func TestLongGap(t *testing.T) {
	const length = 59 * time.Minute
	for _, fits := range []time.Duration{35 * time.Minute, 3 * time.Minute, 100 * time.Second} {
		t.Run(fits.String(), func(t *testing.T) {
			o := options()
			o.Backfill, o.AlertHistory = true, true
			api := &rangeAPI{fakeAPI: newFakeAPI("d"), fits: fits}
			api.show("d", at(0, 0))
			r := newRigOn(t, natstest.Start(t), api.fakeAPI, api, o)
			r.until("the first", body(`"v":0`))
			last := int(length.Seconds())
			api.show("d", at(last, last))
			r.until("the last", body(fmt.Sprintf(`"v":%d`, last)))
			r.stop()
			var got, rows []string
			for _, e := range r.events() {
				switch {
				case strings.HasPrefix(e.subject, "plaspy.location."):
					got = append(got, summary([]event{e})...)
				case strings.Contains(e.body, `"source":"history"`):
					rows = append(rows, e.body[strings.Index(e.body, `"dateTime"`):][:32])
				}
			}
			var want []string
			for s := 0; s <= last; s += 60 {
				switch s {
				case 0, last:
					want = append(want, fmt.Sprint("location.d ", s))
				default:
					want = append(want, fmt.Sprint("location.d backfilled ", s))
				}
			}
			equal(t, got, want)
			if len(rows) != last/600 || !slices.IsSorted(rows) {
				t.Errorf("alerts of the history: %q, want %d", rows, last/600)
			}
		})
	}
}

// rangeAPI has a fix every minute and an alert every ten, and answers no more
// than so much of them.
type rangeAPI struct {
	*fakeAPI
	fits time.Duration
}

func (a *rangeAPI) Locations(_ context.Context, _ string, body []byte, _ plaspy.PostOptions) (plaspy.Answer, error) {
	return a.answer("locations", body, time.Minute, func(second int) string { return at(second, second) })
}

func (a *rangeAPI) Alerts(_ context.Context, _ string, body []byte, _ plaspy.PostOptions) (plaspy.Answer, error) {
	return a.answer("alerts", body, 10*time.Minute, func(second int) string {
		return strings.Replace(at(second, 0), `"v":0`, `"text":"t","alerts":["SOS"]`, 1)
	})
}

func (a *rangeAPI) answer(what string, body []byte, every time.Duration, entry func(second int) string) (plaspy.Answer, error) {
	var r struct{ From, To time.Time }
	if err := json.Unmarshal(body, &r); err != nil {
		return plaspy.Answer{}, err
	}
	if r.To.Sub(r.From) > a.fits {
		return plaspy.Answer{}, &plaspy.Error{Endpoint: what, Status: http.StatusOK, Message: "answer is larger", Err: plaspy.ErrTooLarge}
	}
	var list []string
	zero := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	for second := int(every.Seconds()); second < 3600; second += int(every.Seconds()) {
		if t := zero.Add(time.Duration(second) * time.Second); !t.Before(r.From) && !t.After(r.To) {
			list = append(list, entry(second))
		}
	}
	return plaspy.Answer{Status: http.StatusOK, Body: []byte(`{"success":true,"` + what + `":[` + strings.Join(list, ",") + `]}`)}, nil
}
