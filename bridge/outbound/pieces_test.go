package outbound

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/publisher/natstest"
)

// TestLongGap: a gap that no turn can read is published in order over several,
// with the alerts that lay in it, and the newest fix last.
func TestLongGap(t *testing.T) {
	t.Parallel()
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
