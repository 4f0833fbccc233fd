package feed

import (
	"context"
	"encoding/json"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"

	"plaspy-bridge/publisher"
)

// position is the newest position of a device.
type position struct {
	id       string
	lat, lon float64
	alerts   []string // raised at present
	feature  []byte   // as GeoJSON
}

// feature is the GeoJSON of a position. Location is the API's, untouched.
type feature struct {
	Type       string     `json:"type"`
	ID         string     `json:"id"`
	Geometry   geometry   `json:"geometry"`
	Properties properties `json:"properties"`
}

type geometry struct {
	Type        string     `json:"type"`
	Coordinates [2]float64 `json:"coordinates"` // longitude, latitude
}

type properties struct {
	DeviceID   string          `json:"deviceId"`
	Name       string          `json:"name,omitempty"`
	DateTime   string          `json:"dateTime,omitempty"`
	ObservedAt string          `json:"observedAt,omitempty"`
	Alerts     []string        `json:"alerts"`
	Location   json.RawMessage `json:"location"`
}

// event is the body of a location event.
type event struct {
	DeviceID   string          `json:"deviceId"`
	Name       string          `json:"name"`
	ObservedAt string          `json:"observedAt"`
	Location   json.RawMessage `json:"location"`
}

// fix is the part of a location that is read.
type fix struct {
	DateTime  string          `json:"dateTime"`
	Latitude  float64         `json:"latitude"`
	Longitude float64         `json:"longitude"`
	Alerts    json.RawMessage `json:"alerts"`
}

// readPositions reads the newest positions from the stream, in the order of the
// devices' ids.
func (f *Feed) readPositions(ctx context.Context) ([]position, error) {
	locations, removed, silent := map[string]event{}, map[string]bool{}, map[string][]string{}
	_, err := f.opts.State(ctx, false, func(s publisher.Stored) {
		switch s.Kind {
		case "location":
			var e event
			if json.Unmarshal(s.Body, &e) == nil {
				locations[s.Device] = e
			}
		case "device":
			var d publisher.DeviceBody
			removed[s.Device] = json.Unmarshal(s.Body, &d) == nil && d.Change == publisher.Removed
		case "alert":
			// The location itself has the API's alerts, but not the bridge's own.
			var a publisher.AlertBody
			if json.Unmarshal(s.Body, &a) == nil && a.Source == publisher.SourceBridge && a.State == publisher.Raised {
				silent[s.Device] = append(silent[s.Device], a.Alert)
			}
		}
	})
	if err != nil {
		return nil, err
	}
	list := make([]position, 0, len(locations))
	for _, device := range slices.Sorted(maps.Keys(locations)) {
		if removed[device] {
			continue
		}
		if p, ok := newPosition(locations[device], silent[device]); ok {
			list = append(list, p)
		}
	}
	return list, nil
}

// newPosition returns the position of an event; ok is false if it has none.
func newPosition(e event, alerts []string) (p position, ok bool) {
	var x fix
	if json.Unmarshal(e.Location, &x) != nil || !(math.Abs(x.Latitude) <= 90) || !(math.Abs(x.Longitude) <= 180) {
		return position{}, false
	}
	var raised []string
	_ = json.Unmarshal(x.Alerts, &raised) // another form has no names
	raised = append(raised, alerts...)
	if raised == nil {
		raised = []string{}
	}
	body, err := json.Marshal(feature{
		Type: "Feature", ID: e.DeviceID, Geometry: geometry{"Point", [2]float64{x.Longitude, x.Latitude}},
		Properties: properties{e.DeviceID, e.Name, x.DateTime, e.ObservedAt, raised, e.Location},
	})
	return position{e.DeviceID, x.Latitude, x.Longitude, raised, body}, err == nil
}

// serveDevices answers /devices.geojson.
func (f *Feed) serveDevices(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	box := bbox{-180, -90, 180, 90}
	if text := query.Get("bbox"); query.Has("bbox") {
		var err error
		if box, err = parseBBox(text); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	members, err := f.members(r.Context(), query["group"])
	if err != nil {
		f.opts.Log.Debug("could not read groups", "err", err)
		http.Error(w, "Could not read the groups from the API.", http.StatusBadGateway)
		return
	}
	list, err := f.positions.get(r.Context())
	if err != nil {
		f.opts.Log.Debug("could not read positions", "err", err)
		http.Error(w, "Could not read the positions from the stream.", http.StatusServiceUnavailable)
		return
	}
	alerts := query["alert"]
	var body strings.Builder
	body.WriteString(`{"type":"FeatureCollection","features":[`)
	n := 0
	for _, p := range list {
		switch {
		case !box.has(p.lat, p.lon),
			members != nil && !members[p.id],
			len(alerts) > 0 && !slices.ContainsFunc(p.alerts, func(a string) bool { return slices.Contains(alerts, a) }):
			continue
		}
		if n > 0 {
			body.WriteByte(',')
		}
		body.Write(p.feature)
		n++
	}
	body.WriteString("]}\n")
	w.Header().Set("Content-Type", "application/geo+json")
	_, _ = w.Write([]byte(body.String())) // the client may have disconnected
}

// members returns the devices of any of the groups, by id or name; nil means all.
func (f *Feed) members(ctx context.Context, groups []string) (map[string]bool, error) {
	if len(groups) == 0 {
		return nil, nil
	}
	members := map[string]bool{}
	if f.groups == nil {
		return members, nil
	}
	all, err := f.groups.get(ctx)
	if err != nil {
		return nil, err
	}
	for _, group := range groups {
		for _, id := range all[group] {
			members[id] = true
		}
	}
	return members, nil
}
