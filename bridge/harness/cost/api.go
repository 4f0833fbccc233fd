package cost

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"plaspy-bridge/bridge/sim"
)

// API answers lastLocation by itself, with an exact share of changed answers that
// bear the time at which they were given. A simulator answers all other requests.
// It is safe for concurrent use.
type API struct {
	URL string

	sim     *sim.Server
	srv     *http.Server
	devices map[string]*state
	share   uint64 // of changed answers, in parts of 2^32
	polls   atomic.Int64
	first   atomic.Int64 // devices that were polled at least once
}

// state is the last location of one device.
type state struct {
	part atomic.Uint64 // in parts of 2^32: a change is due at each whole
	at   atomic.Int64  // Unix nanoseconds
}

// NewAPI serves an account with so many devices. changed is the share of polls that
// show a new location, from 0 to 1. Close it.
func NewAPI(ctx context.Context, devices int, changed float64) (*API, error) {
	a := &API{
		sim: sim.New(sim.Options{Devices: devices, Seed: 1}), devices: make(map[string]*state, devices), share: uint64(changed * (1 << 32)),
	}
	for i, id := range a.sim.IDs() {
		s := &state{}
		s.part.Store(uint64(i) * 2654435761 % (1 << 32)) // the changes of devices do not fall together
		a.devices[id] = s
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("simulated API: %w", err)
	}
	a.URL = "http://" + l.Addr().String()
	a.srv = &http.Server{Handler: a, ReadHeaderTimeout: time.Minute}
	go func() { _ = a.srv.Serve(l) }() // ends with Close
	return a, nil
}

// Close ends the API and cuts its connections.
func (a *API) Close() { _ = a.srv.Close() }

// Polls returns the number of answers of lastLocation, and how many devices were
// polled at least once.
func (a *API) Polls() (answers int64, devices int) { return a.polls.Load(), int(a.first.Load()) }

// ServeHTTP implements [http.Handler].
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id, ok := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, "/api/devices/"), "/lastLocation")
	s := a.devices[id]
	if !ok || s == nil {
		a.sim.ServeHTTP(w, r)
		return
	}
	now := time.Now()
	part := s.part.Add(a.share)
	if was := s.at.Load(); was == 0 || part>>32 != (part-a.share)>>32 {
		if s.at.CompareAndSwap(was, now.UnixNano()) && was == 0 {
			a.first.Add(1)
		}
	}
	a.polls.Add(1)
	b := appendAnswer(make([]byte, 0, 1024), s.at.Load(), now)
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b) // a client that has left is not measured
}

// stampKey precedes the time of an answer in its location.
const stampKey = `"stamp":`

// appendAnswer appends the answer of a device with a location of the given time.
// Its size is that of the documented one.
func appendAnswer(b []byte, at int64, now time.Time) []byte {
	fix := time.Unix(0, at).UTC()
	b = append(b, `{"success":true,"error":null,"apiUsage":1,"apiDailyUsage":1,"lastLocation":{"dateTime":"`...)
	b = fix.AppendFormat(b, "2006-01-02T15:04:05.000Z")
	b = append(b, `","latitude":4.637741,"longitude":-74.1`...)
	b = strconv.AppendInt(b, at/1e6%100_000+100_000, 10)
	b = append(b, `,"speed":32,"course":10.4,"battery":97,"sensorTime1":7002,"inactiveSeconds":`...)
	b = strconv.AppendInt(b, int64(now.Sub(fix)/time.Second), 10)
	b = append(b, `,"rpm":0,"milleage":14745.402,"warningTexts":[],"alertTexts":[],"alerts":[],"warnings":[],"hasCriticalAlert":false,`+
		`"attributes":{"gsmSignal":"26","satellites":"14","hdop":"1","externalVoltage":"12.4","fixType":"3D","protocol":"GT06",`+
		`"operator":"Claro","cell":"732-101-4111","altitude":"2599","address":"Calle 52 con Carrera 67, Bogotá",`...)
	b = append(b, stampKey+`"`...)
	b = strconv.AppendInt(b, at, 10)
	return append(b, `"},"accessoriesAttributes":[],"inputs":[false,false],"outputs":[false,false]}}`...)
}

// stampOf returns the time of the answer that an event holds.
func stampOf(event []byte) (time.Time, bool) {
	_, rest, ok := bytes.Cut(event, []byte(stampKey+`"`))
	digits, _, closed := bytes.Cut(rest, []byte(`"`))
	at, err := strconv.ParseInt(string(digits), 10, 64)
	return time.Unix(0, at), ok && closed && err == nil
}
