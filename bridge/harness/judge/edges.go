package judge

import (
	"encoding/json"
	"slices"

	"plaspy-bridge/publisher"
)

// edge is a location that raises or clears an alert.
type edge struct{ state, dateTime string }

// edges compares the alert events with those that the locations in the stream imply.
func (v *verdict) edges() {
	want := map[string][]edge{}
	raised := map[string]bool{}
	for _, e := range v.events {
		var fix struct {
			DateTime string
			Alerts   []string
		}
		if err := json.Unmarshal([]byte(e.Raw), &fix); err != nil {
			continue // counted as different
		}
		for _, a := range fix.Alerts {
			if !raised[a] {
				want[a] = append(want[a], edge{"raised", fix.DateTime})
			}
			raised[a] = true
		}
		for a, is := range raised {
			if is && !slices.Contains(fix.Alerts, a) {
				want[a] = append(want[a], edge{"cleared", fix.DateTime})
				raised[a] = false
			}
		}
	}
	got := map[string][]edge{}
	for _, e := range v.alerts {
		if e.Source != "" {
			continue // judged by besides
		}
		got[e.Alert] = append(got[e.Alert], edge{e.State, e.DateTime})
	}
	for alert, list := range want {
		v.r.Edges += len(list)
		v.compareEdges(alert, list, got[alert])
	}
	for alert, list := range got {
		if want[alert] == nil {
			v.compareEdges(alert, nil, list)
		}
	}
}

// besides judges the alerts that do not come from a location. Each alert of the history
// has one event, and the bridge's own alerts are raised and cleared in turn.
func (v *verdict) besides() {
	rows := map[Event]bool{}
	own := map[string]string{} // state by alert
	for _, e := range v.alerts {
		wrong := false
		switch row := (Event{Alert: e.Alert, DateTime: e.DateTime}); e.Source {
		case publisher.SourceHistory:
			v.r.FromHistory++
			wrong = rows[row]
			rows[row] = true
		case publisher.SourceBridge:
			v.r.Silent++
			wrong = own[e.Alert] == e.State || own[e.Alert] == "" && e.State != publisher.Raised
			own[e.Alert] = e.State
		}
		if wrong {
			v.r.EdgesWrong++
			v.r.say("%s: alert %s of the %s, message %d, is %s again", v.device, e.Alert, e.Source, e.Seq, e.State)
		}
	}
}

// compareEdges counts the missing and the unexpected events of one alert.
func (v *verdict) compareEdges(alert string, want, got []edge) {
	next := 0
	for _, g := range got {
		i := slices.Index(want[next:], g)
		if i < 0 {
			v.r.EdgesWrong++
			v.r.say("%s: alert %s was %s at %s in the stream, by no location there", v.device, alert, g.state, g.dateTime)
			continue
		}
		v.r.EdgesLost += i
		for _, e := range want[next : next+i] {
			v.r.say("%s: alert %s was %s at %s by a location in the stream, which has no such event", v.device, alert, e.state, e.dateTime)
		}
		next += i + 1
	}
	v.r.EdgesLost += len(want) - next
	for _, e := range want[next:] {
		v.r.say("%s: alert %s was %s at %s by a location in the stream, which has no such event", v.device, alert, e.state, e.dateTime)
	}
}
