package feed

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

func TestMain(m *testing.M) { natstest.Main(m) }

func TestBBox(t *testing.T) {
	for _, tt := range []struct {
		box      string
		lat, lon float64
		has      bool
	}{
		{"-75,4,-73,5", 4.7, -74.1, true},
		{"-75,4,-73,5", 3.9, -74.1, false},
		{"-75,4,-73,5", 4.7, -75.1, false},
		{"-75,4,-73,5", 4, -75, true}, // on the edge
		{" -75, 4, -73, 5", 4.7, -74.1, true},
		{"170,-20,-170,20", 0, 175, true},
		{"170,-20,-170,20", 0, -175, true},
		{"170,-20,-170,20", 0, 0, false},
		{"170,-20,-170,20", 21, 175, false},
		{"170,-20,180,20", 0, -180, true}, // one meridian
		{"-180,-20,-170,20", 0, 180, true},
		{"-180,-90,180,90", -90, 12, true},
		{"5,5,5,5", 5, 5, true},
	} {
		b, err := parseBBox(tt.box)
		if err != nil || b.has(tt.lat, tt.lon) != tt.has {
			t.Errorf("%s has %v,%v: %v, %v, want %v", tt.box, tt.lat, tt.lon, b.has(tt.lat, tt.lon), err, tt.has)
		}
	}
	for _, text := range []string{"", "1,2,3", "1,2,3,4,5,6", "a,b,c,d", "0,5,0,4", "-181,0,0,0", "0,-91,0,0", "NaN,0,0,0", "0,0,Inf,0", "0,0,0,90.1", ",,,"} {
		if _, err := parseBBox(text); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}

func FuzzBBox(f *testing.F) {
	f.Add("170,-20,-170,20", 1.0, 175.0)
	f.Fuzz(func(t *testing.T, text string, lat, lon float64) {
		b, err := parseBBox(text)
		if err != nil {
			return
		}
		whole := b.west <= b.east
		if in := b.has(lat, lon); in && (lat < b.south || lat > b.north || whole && lon != -180 && lon != 180 && (lon < b.west || lon > b.east)) {
			t.Errorf("%+v has %v,%v", b, lat, lon)
		}
	})
}

// rig is a feed over a stream.
type rig struct {
	t    *testing.T
	js   jetstream.JetStream
	url  string
	feed *Feed
}

const subjects = publisher.Subjects("plaspy")

func start(t *testing.T, set func(*Options)) *rig {
	t.Helper()
	js := natstest.JetStream(t, natstest.Start(t).Client(t))
	if _, err := publisher.EnsureStreams(t.Context(), js, subjects.Streams(publisher.StreamOptions{Retention: time.Hour})); err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, js: js}
	o := Options{State: r.state, JetStream: js, Subjects: subjects, Log: slog.New(slog.DiscardHandler)}
	if set != nil {
		set(&o)
	}
	r.feed = New(o)
	r.feed.positions.age = 0
	srv := httptest.NewServer(r.feed)
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	r.url = srv.URL
	return r
}

// state reads the stream as the publisher does.
func (r *rig) state(ctx context.Context, _ bool, f func(publisher.Stored)) (publisher.Mark, error) {
	s, err := r.js.Stream(ctx, subjects.Events())
	if err != nil {
		return publisher.Mark{}, err
	}
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(">"))
	if err != nil {
		return publisher.Mark{}, err
	}
	for subject := range info.State.Subjects {
		m, err := s.GetLastMsgForSubject(ctx, subject)
		if err != nil {
			return publisher.Mark{}, err
		}
		kind, device, alert, _ := subjects.Kind(subject)
		f(publisher.Stored{Kind: kind, Device: device, Alert: alert, Body: m.Data})
	}
	return publisher.Mark{}, nil
}

func (r *rig) publish(subject, body string) {
	r.t.Helper()
	if _, err := r.js.Publish(r.t.Context(), subject, []byte(body)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) locate(id string, lat, lon float64, more string) {
	r.t.Helper()
	r.publish(subjects.Location(publisher.Encode(id)), fmt.Sprintf(
		`{"deviceId":%q,"name":"Truck <%s>","observedAt":"2026-01-02T03:04:05.678Z","location":{"dateTime":"2026-01-02T03:04:01Z","latitude":%v,"longitude":%v%s}}`,
		id, id, lat, lon, more))
}

// get returns an answer's status and body.
func (r *rig) get(path string) (int, string, http.Header) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, r.url+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, string(body), resp.Header
}

func TestDevicesGeoJSON(t *testing.T) {
	t.Parallel()
	r := start(t, func(o *Options) {
		o.Groups = func(context.Context) (map[string][]string, error) {
			return map[string][]string{"7": {"dev 1", "c"}, "North": {"dev 1", "c"}, "8": {"b"}}, nil
		}
	})
	r.locate("dev 1", 1, 1, "")
	r.locate("dev 1", 4.7, -74.1, `,"alerts":["High Speed","Low Battery"],"unknown":{"x":[1]}`)
	r.locate("b", 10, 179, `,"alerts":[]`)
	r.locate("c", 10, -179, `,"alerts":null`)
	r.locate("gone", 10, 10, "")
	r.publish(subjects.Device("gone"), `{"deviceId":"gone","change":"removed"}`)
	r.publish(subjects.Device("b"), `{"deviceId":"b","change":"added"}`)
	r.publish(subjects.Alert("b", "silent"), `{"deviceId":"b","alert":"silent","state":"raised","source":"bridge"}`)
	r.publish(subjects.Alert("c", "silent"), `{"deviceId":"c","alert":"silent","state":"cleared","source":"bridge"}`)
	r.publish(subjects.Alert("c", "Old"), `{"deviceId":"c","alert":"Old","state":"raised","source":"history"}`)

	status, body, header := r.get("/devices.geojson")
	var got struct {
		Type     string    `json:"type"`
		Features []feature `json:"features"`
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil || status != 200 || header.Get("Content-Type") != "application/geo+json" || len(got.Features) != 3 {
		t.Fatalf("%d %v: %v\n%s", status, header, err, body)
	}
	var first feature
	for _, f := range got.Features {
		if f.ID == "dev 1" {
			first = f
		}
	}
	want := feature{
		Type: "Feature", ID: "dev 1", Geometry: geometry{"Point", [2]float64{-74.1, 4.7}},
		Properties: properties{
			DeviceID: "dev 1", Name: "Truck <dev 1>", DateTime: "2026-01-02T03:04:01Z", ObservedAt: "2026-01-02T03:04:05.678Z",
			Alerts:   []string{"High Speed", "Low Battery"},
			Location: json.RawMessage(`{"dateTime":"2026-01-02T03:04:01Z","latitude":4.7,"longitude":-74.1,"alerts":["High Speed","Low Battery"],"unknown":{"x":[1]}}`),
		},
	}
	if diff := cmp.Diff(first, want); got.Type != "FeatureCollection" || diff != "" {
		t.Errorf("%s (-got +want):\n%s", got.Type, diff)
	}

	for query, want := range map[string]string{
		"?bbox=-75,4,-73,5":              "dev 1",
		"?bbox=178,0,-178,20":            "b c",
		"?bbox=178,0,180,20":             "b",
		"?bbox=0,-90,1,-80":              "",
		"?alert=High+Speed":              "dev 1",
		"?alert=silent":                  "b",
		"?alert=silent&alert=High+Speed": "b dev 1",
		"?alert=Old":                     "",
		"?group=7":                       "c dev 1",
		"?group=North&bbox=-75,4,-73,5":  "dev 1",
		"?group=7&group=8":               "b c dev 1",
		"?group=none":                    "",
		"?other=1":                       "b c dev 1",
	} {
		status, body, _ := r.get("/devices.geojson" + query)
		var got struct {
			Features []feature `json:"features"`
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil || status != 200 || got.Features == nil {
			t.Errorf("%s: %d %v %s", query, status, err, body)
		}
		var ids []string
		for _, f := range got.Features {
			ids = append(ids, f.ID)
		}
		if ids := strings.Join(ids, " "); ids != want {
			t.Errorf("%s: got %q, want %q", query, ids, want)
		}
	}
	for _, query := range []string{"?bbox=1,2,3", "?bbox=", "?bbox=0,5,0,4"} {
		if status, _, _ := r.get("/devices.geojson" + query); status != 400 {
			t.Errorf("%s: %d, want 400", query, status)
		}
	}
}

func TestDevicesGeoJSONWithoutAStream(t *testing.T) {
	r := start(t, func(o *Options) {
		o.State = func(context.Context, bool, func(publisher.Stored)) (publisher.Mark, error) {
			return publisher.Mark{}, errors.New("no stream")
		}
		o.Groups = func(context.Context) (map[string][]string, error) { return nil, errors.New("no API") }
	})
	if status, body, _ := r.get("/devices.geojson"); status != 503 || strings.Contains(body, "no stream") {
		t.Errorf("%d %s", status, body)
	}
	if status, _, _ := r.get("/devices.geojson?group=1"); status != 502 {
		t.Errorf("%d, want 502", status)
	}
}

// sse reads server-sent events as a browser does.
type sse struct {
	t     *testing.T
	lines *bufio.Reader
	close func()
}

func (r *rig) events(query, last string) *sse {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	r.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+"/events"+query, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = resp.Body.Close() })
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
		r.t.Fatalf("%d %v", resp.StatusCode, resp.Header)
	}
	s := &sse{t: r.t, lines: bufio.NewReader(resp.Body), close: cancel}
	if line, err := s.lines.ReadString('\n'); err != nil || line != "retry: 2000\n" {
		r.t.Fatalf("begins with %q: %v", line, err)
	}
	return s
}

// next returns the next event as "id event data".
func (s *sse) next() string {
	s.t.Helper()
	fields := map[string][]string{}
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			s.t.Fatal(err)
		}
		line = strings.TrimSuffix(line, "\n")
		if line == "" && len(fields) > 0 {
			return strings.TrimSpace(strings.Join(fields["id"], "") + " " + strings.Join(fields["event"], "") + " " + strings.Join(fields["data"], "\n"))
		}
		if name, value, ok := strings.Cut(line, ": "); ok && name != "" {
			fields[name] = append(fields[name], value)
		}
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	r.publish(subjects.Location("a"), `{"old":1}`)
	live := r.events("", "")
	r.publish(subjects.Location("a"), "{\n\"n\":\r\n2}")
	r.publish(subjects.Alert("b", "x"), `{"n":3}`)
	r.publish(subjects.Device("a"), `{"n":4}`)
	for _, want := range []string{"2 location {\n\"n\":\n2}", `3 alert {"n":3}`, `4 device {"n":4}`} {
		if got := live.next(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	live.close()

	// A client that comes again misses nothing, and gets nothing twice.
	again := r.events("", "2")
	if got := again.next(); got != `3 alert {"n":3}` {
		t.Errorf("resumed with %q", got)
	}
	one := r.events("?device=a&kind=location&kind=device", "0")
	for _, want := range []string{`1 location {"old":1}`, "2 location {\n\"n\":\n2}", `4 device {"n":4}`} {
		if got := one.next(); got != want {
			t.Errorf("filtered: got %q, want %q", got, want)
		}
	}
	// A stream that was created again has fewer messages than the client has seen.
	reset := r.events("", "1000")
	if got := reset.next(); got != "reset {}" {
		t.Errorf("after a new stream: %q", got)
	}
	r.publish(subjects.Location("a"), `{"n":5}`)
	if got := reset.next(); got != `5 location {"n":5}` {
		t.Errorf("after a reset: %q", got)
	}
}

func TestEventsAreAlive(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	r.feed.heartbeat = time.Second
	s := r.events("", "")
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(line, ":") {
			break
		}
	}
	r.publish(subjects.Location("a"), `{"n":1}`)
	if got := s.next(); got != `1 location {"n":1}` {
		t.Errorf("after a quiet while: %q", got)
	}
}

func TestEventsAreBounded(t *testing.T) {
	t.Parallel()
	r := start(t, func(o *Options) { o.Clients = 2 })
	first := r.events("", "")
	r.events("", "")
	status, _, header := r.get("/events")
	if status != 503 || header.Get("Retry-After") == "" {
		t.Errorf("the third: %d %v, want 503", status, header)
	}
	first.close()
	natstest.Eventually(t, "the place of a disconnected client is free", func() bool { return len(r.feed.places) <= 1 })
	r.events("", "")
}

func TestEventsRefuses(t *testing.T) {
	r := start(t, nil)
	for _, query := range []string{"?kind=result", "?device=", "?" + strings.Repeat("device=x&", 200)} {
		if status, body, _ := r.get("/events" + query); status != 400 {
			t.Errorf("%s: %d %s, want 400", query, status, body)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.url+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"x", "-1", "1.5", "99999999999999999999"} {
		req.Header.Set("Last-Event-ID", id)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != 400 {
			t.Errorf("Last-Event-ID %s: %d, want 400", url.QueryEscape(id), resp.StatusCode)
		}
	}
}

func BenchmarkDevicesGeoJSON(b *testing.B) {
	e := event{DeviceID: "d", Name: "n", ObservedAt: "2026-01-02T03:04:05.678Z", Location: json.RawMessage(`{"dateTime":"2026-01-02T03:04:01Z","latitude":4.7,"longitude":-74.1,"alerts":["a"]}`)}
	p, ok := newPosition(e, nil)
	if !ok {
		b.Fatal("no position")
	}
	f := New(Options{Log: slog.New(slog.DiscardHandler)})
	for range 10_000 {
		f.positions.value = append(f.positions.value, p)
	}
	f.positions.age, f.positions.at = time.Hour, time.Now()
	r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/devices.geojson?bbox=-75,4,-73,5&alert=a", nil)
	b.ReportAllocs()
	for b.Loop() {
		f.ServeHTTP(httptest.NewRecorder(), r)
	}
}
