package outbound

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"plaspy-bridge/bridge/plaspy"
)

// fakeAPI answers from the fixes that a test put into it, and records its answers.
type fakeAPI struct {
	mu      sync.Mutex
	list    []string          // entries of the device list, raw
	listErr error             //
	shown   map[string]string // lastLocation by id
	next    map[string]func(poll int) (string, error)
	polls   map[string]int
	truth   map[string][]string // every different answer in a row
	ranges  map[string]string   // answer to a range of locations
	alerts  map[string]string   // answer to a range of alerts
	asked   []string            // bodies of range requests
	hang    map[string]bool     // until a timeout
	hanging chan struct{}       // if not nil, the timeout of those that hang is when it is closed
	polled  chan string         // every poll's device, if a test reads it
	// groupless is how many more times the list of groups is empty.
	groupless int
	lists     int // readings of the device list
}

func newFakeAPI(ids ...string) *fakeAPI {
	a := &fakeAPI{
		shown: map[string]string{}, next: map[string]func(int) (string, error){}, polls: map[string]int{}, truth: map[string][]string{},
		ranges: map[string]string{}, alerts: map[string]string{}, hang: map[string]bool{}, polled: make(chan string, 1<<16),
	}
	a.setList(ids...)
	return a
}

func (a *fakeAPI) setList(ids ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.list = nil
	for _, id := range ids {
		a.list = append(a.list, fmt.Sprintf(`{"id":%q,"name":"Truck %s"}`, id, id))
	}
}

func (a *fakeAPI) set(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
}

func (a *fakeAPI) show(id, raw string) { a.set(func() { a.shown[id] = raw }) }

func (a *fakeAPI) Devices(context.Context) ([]plaspy.Device, []error, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lists++
	var list []plaspy.Device
	for _, raw := range a.list {
		var e struct {
			ID, Name string
			Expires  time.Time
		}
		if err := json.Unmarshal([]byte(raw), &e); err != nil {
			return nil, nil, err
		}
		list = append(list, plaspy.Device{ID: e.ID, Name: e.Name, Expires: e.Expires, Raw: json.RawMessage(raw)})
	}
	return list, nil, a.listErr
}

func (a *fakeAPI) Groups(context.Context) ([]plaspy.Group, []error, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.groupless > 0 {
		a.groupless--
		return nil, nil, nil
	}
	return []plaspy.Group{{ID: "g1", Name: "North", Devices: []string{"a", "b"}}, {ID: "g2", Name: "South", Devices: []string{"c"}}}, nil, nil
}

func (a *fakeAPI) LastLocation(ctx context.Context, id string, buf []byte) (plaspy.LastLocation, error) {
	a.mu.Lock()
	n := a.polls[id]
	a.polls[id]++
	raw, hang, next, timeout := a.shown[id], a.hang[id], a.next[id], a.hanging
	a.mu.Unlock()
	select {
	case a.polled <- id:
	default:
	}
	if hang {
		var late <-chan time.Time
		if timeout == nil {
			late = time.After(100 * time.Millisecond)
		}
		select {
		case <-ctx.Done():
			return plaspy.LastLocation{}, context.Cause(ctx)
		case <-timeout:
			return plaspy.LastLocation{}, &plaspy.Error{Endpoint: "last_location", Message: "no answer in time"}
		case <-late:
			return plaspy.LastLocation{}, &plaspy.Error{Endpoint: "last_location", Message: "no answer in time"}
		}
	}
	if next != nil {
		var err error
		if raw, err = next(n); err != nil {
			return plaspy.LastLocation{}, err
		}
	}
	if raw == "" {
		return plaspy.LastLocation{At: time.Now()}, nil
	}
	a.mu.Lock()
	if t := a.truth[id]; len(t) == 0 || t[len(t)-1] != raw {
		a.truth[id] = append(t, raw)
	}
	a.mu.Unlock()
	buf = append(buf[:0], raw...)
	return plaspy.LastLocation{Raw: buf, Buf: buf, At: time.Now()}, nil
}

func (a *fakeAPI) Locations(_ context.Context, id string, body []byte, _ plaspy.PostOptions) (plaspy.Answer, error) {
	return a.rangeAnswer(a.ranges, "locations", id, body)
}

func (a *fakeAPI) Alerts(_ context.Context, id string, body []byte, _ plaspy.PostOptions) (plaspy.Answer, error) {
	return a.rangeAnswer(a.alerts, "alerts", id, body)
}

func (a *fakeAPI) rangeAnswer(from map[string]string, what, id string, body []byte) (plaspy.Answer, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, what+" "+id+" "+string(body))
	answer := from[id]
	if answer == "error" {
		return plaspy.Answer{}, &plaspy.Error{Endpoint: what, Status: 500, Message: "uncontrolled error"}
	}
	if answer == "refused" {
		return plaspy.Answer{}, &plaspy.Error{Endpoint: what, Status: http.StatusNotFound, Message: "no such resource"}
	}
	return plaspy.Answer{Status: 200, Body: []byte(`{"success":true,"` + what + `":[` + answer + `]}`)}, nil
}

func (a *fakeAPI) DeviceURL(id string) string { return "https://api.test/api/devices/" + id }
