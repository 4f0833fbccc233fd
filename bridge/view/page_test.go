package view

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

// page is the state of a browser: it takes frames as feed.js does.
type page struct {
	tb     testing.TB
	rows   map[int]*shown
	events map[string]int // how many of each kind came
	alerts []occurrence
	hello  hello
	status Status
	sample []json.RawMessage
}

// shown is one device of a page.
type shown struct {
	ID, Name       string
	Lat, Lon       int32
	Fix, Seen      int64
	Speed          int32
	Alerts         []string
	Polled, Next   int64
	Result, Reason string
	Failures       int
	Trail          int      // spots
	TrailEnd       [2]int64 // latitude, longitude
}

func newPage(tb testing.TB) *page {
	return &page{tb: tb, rows: make(map[int]*shown), events: make(map[string]int)}
}

// take applies a frame, which may have many events.
func (p *page) take(data []byte) {
	p.tb.Helper()
	if !bytes.HasSuffix(data, []byte("\n\n")) {
		p.tb.Fatalf("a frame that does not end: %q", data)
	}
	for event := range strings.SplitSeq(strings.TrimSuffix(string(data), "\n\n"), "\n\n") {
		head, body, ok := strings.Cut(event, "\ndata: ")
		name, named := strings.CutPrefix(head, "event: ")
		if !ok || !named || strings.ContainsAny(body, "\r\n") || !json.Valid([]byte(body)) || !utf8.ValidString(body) {
			p.tb.Fatalf("not an event of one line of JSON: %q", event)
		}
		p.events[name]++
		p.event(name, []byte(body))
	}
}

func (p *page) event(name string, body []byte) {
	p.tb.Helper()
	switch name {
	case "hello":
		clear(p.rows)
		p.hello = hello{}
		p.decode(body, &struct {
			*hello
			Samples []json.RawMessage `json:"samples"`
		}{&p.hello, nil})
	case "status":
		p.status = Status{}
		p.decode(body, &p.status)
	case "sample":
		p.sample = append(p.sample, body)
	case "trails":
		var list [][]int64
		p.decode(body, &list)
		for _, t := range list {
			if len(t)%3 != 1 {
				p.tb.Fatalf("a trail of %d numbers", len(t))
			}
			r := p.row(int(t[0]))
			r.Trail, r.TrailEnd = len(t)/3, [2]int64{}
			for i := 1; i < len(t); i += 3 {
				r.TrailEnd[0] += t[i+1]
				r.TrailEnd[1] += t[i+2]
			}
		}
	case "fleet":
		p.fleet(body)
	case "ready":
	default:
		p.tb.Fatalf("unknown event %q", name)
	}
}

func (p *page) fleet(body []byte) {
	p.tb.Helper()
	var f struct {
		Now            int64
		Gone           []int
		IDs, Fix, Poll [][]json.RawMessage
		Alerts         []occurrence
	}
	p.decode(body, &f)
	if f.Now == 0 {
		p.tb.Errorf("a frame without its time: %s", body)
	}
	for _, slot := range f.Gone {
		p.row(slot)
		delete(p.rows, slot)
	}
	for _, w := range f.IDs {
		var slot int
		p.decode(w[0], &slot)
		if p.rows[slot] == nil {
			p.rows[slot] = &shown{}
		}
		p.values(w, &slot, &p.rows[slot].ID, &p.rows[slot].Name)
	}
	for _, w := range f.Fix {
		var slot int
		p.decode(w[0], &slot)
		r := p.row(slot)
		p.values(w, &slot, &r.Lat, &r.Lon, &r.Fix, &r.Seen, &r.Speed, &r.Alerts)
	}
	for _, w := range f.Poll {
		var slot int
		p.decode(w[0], &slot)
		r := p.row(slot)
		p.values(w, &slot, &r.Polled, &r.Next, &r.Result, &r.Reason, &r.Failures)
	}
	p.alerts = append(p.alerts, f.Alerts...)
}

// row is the device of a slot, which must have been introduced.
func (p *page) row(slot int) *shown {
	p.tb.Helper()
	r := p.rows[slot]
	if r == nil {
		p.tb.Fatalf("slot %d has no device", slot)
	}
	return r
}

func (p *page) values(from []json.RawMessage, to ...any) {
	p.tb.Helper()
	if len(from) != len(to) {
		p.tb.Fatalf("a row of %d values, want %d: %s", len(from), len(to), from)
	}
	for i, v := range from {
		if s, ok := to[i].(*[]string); ok {
			*s = nil
		}
		p.decode(v, to[i])
	}
}

func (p *page) decode(data []byte, v any) {
	p.tb.Helper()
	if err := json.Unmarshal(data, v); err != nil {
		p.tb.Fatalf("%v in %s", err, data)
	}
}

// byID are the devices that the page shows.
func (p *page) byID() map[string]shown {
	p.tb.Helper()
	m := make(map[string]shown, len(p.rows))
	for _, r := range p.rows {
		if _, twice := m[r.ID]; twice {
			p.tb.Errorf("%s is shown twice", r.ID)
		}
		m[r.ID] = *r
	}
	return m
}

// watcher is a page on a stream without HTTP.
type watcher struct {
	*page
	client *client
}

func watch(tb testing.TB, v *View) *watcher {
	tb.Helper()
	w := &watcher{newPage(tb), v.join()}
	if w.client == nil {
		tb.Fatal("no room")
	}
	return w
}

// catchUp takes every frame that waits, and reports whether more may follow.
func (w *watcher) catchUp() bool {
	w.tb.Helper()
	for {
		select {
		case data, ok := <-w.client.frames:
			if !ok {
				return false
			}
			w.take(data)
		default:
			return true
		}
	}
}

func (w *watcher) String() string { return fmt.Sprint(w.events) }
