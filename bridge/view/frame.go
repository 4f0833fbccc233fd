package view

import (
	"encoding/json"
	"strconv"
	"time"
)

// frame collects server-sent events for the pages. Rows are written by hand, because
// reflection over a thousand rows a second would be most of the view's cost; only
// strings go through encoding/json.
//
//	event fleet: {"now": ms, "gone": [slot..], "ids": [[slot, id, name]..],
//	  "fix": [[slot, lat, lon, fix, seen, speed, [alert..]]..],
//	  "poll": [[slot, polled, next, result, reason, failures]..],
//	  "alerts": [{at, slot, id, name, alert, raised}..]}
//	event trails: [[slot, at, lat, lon, at, lat, lon ..]..], oldest first; each time
//	  and position after the first is the difference from the one before
//	event sample, event status, event hello: see the types of these names
//
// Positions are in 1e-5 degrees, times in Unix milliseconds, speeds in tenths.
// A member without elements is left out. Slots in gone may be used again by ids of
// the same frame.
type frame struct{ buf []byte }

// begin starts an event.
func (f *frame) begin(name string) {
	f.buf = append(append(append(f.buf, "event: "...), name...), "\ndata: "...)
}

// end ends an event. JSON has no line breaks of its own.
func (f *frame) end() { f.buf = append(f.buf, '\n', '\n') }

// event writes an event with data that encoding/json encodes.
func (f *frame) event(name string, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		return // values of these types can always be encoded
	}
	f.begin(name)
	f.buf = append(f.buf, data...)
	f.end()
}

// fleet writes rows: the parts in mask, and the parts that have changed.
func (f *frame) fleet(now time.Time, rows []*row, mask uint8, gone []int32, news []occurrence) {
	f.begin("fleet")
	f.buf = strconv.AppendInt(append(f.buf, `{"now":`...), now.UnixMilli(), 10)
	if len(gone) > 0 {
		f.buf = append(f.buf, `,"gone":[`...)
		for _, slot := range gone {
			f.int(int64(slot))
		}
		f.close()
	}
	for _, part := range [...]struct {
		part  uint8
		head  string
		write func(*row)
	}{{changedName, `,"ids":[`, f.ids}, {changedFix, `,"fix":[`, f.fix}, {changedPoll, `,"poll":[`, f.poll}} {
		some := false
		for _, r := range rows {
			if (r.changes|mask)&part.part == 0 || part.part == changedFix && r.fix == 0 && r.seen == 0 {
				continue
			}
			if !some {
				f.buf, some = append(f.buf, part.head...), true
			}
			f.buf = append(f.buf, '[')
			f.int(int64(r.slot))
			part.write(r)
			f.close()
			f.buf = append(f.buf, ',')
		}
		if some {
			f.close()
		}
	}
	if len(news) > 0 {
		f.buf = append(f.buf, `,"alerts":`...)
		f.json(news)
		f.buf = f.buf[:len(f.buf)-1]
	}
	f.buf = append(f.buf, '}')
	f.end()
}

func (f *frame) ids(r *row) {
	f.text(r.id)
	f.text(r.name)
}

func (f *frame) fix(r *row) {
	f.int(int64(r.lat))
	f.int(int64(r.lon))
	f.int(r.fix)
	f.int(r.seen)
	f.int(int64(r.speed))
	if len(r.alerts) == 0 {
		f.buf = append(f.buf, "[],"...)
		return
	}
	f.json(r.alerts)
}

func (f *frame) poll(r *row) {
	f.int(r.polled)
	f.int(r.next)
	last := r.outcome.Value()
	f.text(last.result)
	f.text(last.reason)
	f.int(int64(r.failures))
}

// trails writes the trails of two or more spots: every nth spot and the newest.
func (f *frame) trails(rows []*row, nth int) {
	f.begin("trails")
	f.buf = append(f.buf, '[')
	for _, r := range rows {
		if len(r.trail) < 2 {
			continue
		}
		f.buf = append(f.buf, '[')
		f.int(int64(r.slot))
		var last spot
		for i := (len(r.trail) - 1) % nth; i < len(r.trail); i += nth {
			s := r.trail[i]
			f.int(s.at - last.at)
			f.int(int64(s.lat - last.lat))
			f.int(int64(s.lon - last.lon))
			last = s
		}
		f.close()
		f.buf = append(f.buf, ',')
	}
	f.close()
	f.end()
}

// text writes a string, by hand if there is nothing to escape.
func (f *frame) text(s string) {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			f.json(s)
			return
		}
	}
	f.buf = append(append(append(f.buf, '"'), s...), '"', ',')
}

// int and json write an element and a comma. close ends an array and removes the last comma.
func (f *frame) int(n int64) { f.buf = append(strconv.AppendInt(f.buf, n, 10), ',') }

func (f *frame) json(v any) {
	data, err := json.Marshal(v)
	if err != nil {
		data = []byte("null") // values of these types can always be encoded
	}
	f.buf = append(append(f.buf, data...), ',')
}

func (f *frame) close() {
	if last := len(f.buf) - 1; f.buf[last] == ',' {
		f.buf[last] = ']'
		return
	}
	f.buf = append(f.buf, ']')
}
