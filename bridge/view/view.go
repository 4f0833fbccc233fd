package view

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"plaspy-bridge/bridge/tick"

	"github.com/prometheus/client_golang/prometheus"
)

// Options of a [View]. Source and Log are required.
type Options struct {
	Source      Source
	Gatherer    prometheus.Gatherer // the bridge's metrics, for the charts; nil means no charts
	Status      func() Status       // called once a second; optional
	DeadLetters DeadLetters         // nil means that the page shows only their number
	Version     string
	Replica     string // this replica's name
	Clients     int    // streams at once; 0 means 16
	Log         *slog.Logger
	Registerer  prometheus.Registerer // nil means that metrics are not registered
}

// Limits of the streams.
const (
	clientsAtOnce = 16
	frameEvery    = time.Second
	// unwatched is the time between two updates while no page is open. The first page
	// brings an update of its own.
	unwatched = 5 * time.Second
	// queued is the number of frames that a page may be behind. One more, and it is
	// disconnected.
	queued = 16
	// patience limits the time to write partSize bytes.
	patience = 15 * time.Second
	partSize = 64 << 10
	// longest limits the time that a disconnected page may take for its last frame.
	longest = time.Minute
	// rowsPerFrame splits the snapshot, so that the page stays responsive while it
	// reads it.
	rowsPerFrame = 1000
	// spotsPerSnapshot limits the trails in a snapshot. Those of a large fleet are
	// thinned out.
	spotsPerSnapshot = 60_000
)

// View is the live view's handler. Make it with [New]. [View.Run] has to run, or
// the pages are not updated. It is safe for concurrent use.
type View struct {
	opts    Options
	metrics *metrics
	mux     *http.ServeMux
	history *history // nil means no charts

	mu       sync.Mutex // guards the fields below
	fleet    *fleet
	status   []byte // the last status event
	clients  map[*client]struct{}
	open     int    // handlers that have not returned, those of disconnected pages included
	size     int    // of the last frame
	snapshot []byte // the first data of a new page; nil if it is out of date
	updated  time.Time
	over     bool // Run has ended
}

// client is one open stream.
type client struct {
	frames chan []byte   // closed when the page is disconnected or the view ends
	cut    chan struct{} // closed at the same time, for a handler that is writing a frame
	left   bool          // its handler has returned
}

// New returns an empty view.
func New(o Options) *View {
	if o.Clients <= 0 {
		o.Clients = clientsAtOnce
	}
	v := &View{opts: o, fleet: newFleet(), clients: make(map[*client]struct{})}
	v.metrics = newMetrics(o.Registerer, v)
	if o.Gatherer != nil {
		v.history = newHistory(o.Gatherer)
	}
	v.mux = v.routes()
	return v
}

// ServeHTTP serves the page at / and its files and streams below /view/.
func (v *View) ServeHTTP(w http.ResponseWriter, r *http.Request) { v.mux.ServeHTTP(w, r) }

// Run updates the view until ctx is cancelled, then ends every stream. Call it once.
func (v *View) Run(ctx context.Context) {
	ticker := tick.NewTicker(frameEvery)
	defer ticker.Stop()
	defer v.stop()
	var sampled time.Time
	for {
		now := time.Now()
		if age, watched := v.age(now); watched || age >= unwatched-frameEvery/2 {
			v.update(now)
		}
		if v.history != nil && now.Sub(sampled) >= sampleEvery-frameEvery/2 {
			sampled = now
			v.sample(now)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			ticker.Next()
		}
	}
}

// age returns the time since the last update, and whether a page is open.
func (v *View) age(now time.Time) (age time.Duration, watched bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return now.Sub(v.updated), len(v.clients) > 0
}

// update reads the changes and sends them to every page.
func (v *View) update(now time.Time) {
	var status Status
	if v.opts.Status != nil {
		status = v.opts.Status()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.updated = now
	v.opts.Source.Changed(func(d Device) { v.fleet.update(now, &d) })
	v.fleet.loaded = v.fleet.loaded || len(v.fleet.rows) > 0
	f := frame{buf: make([]byte, 0, v.size)}
	if v.opts.Status != nil {
		v.writeStatusLocked(&f, status)
	}
	if len(v.clients) > 0 {
		f.fleet(now, v.fleet.changed, 0, v.fleet.gone, v.fleet.unsent)
	}
	v.fleet.markSent()
	v.snapshot, v.size = nil, len(f.buf)+len(f.buf)/8
	v.sendLocked(f.buf)
}

// writeStatusLocked adds the status to a frame if it has changed.
func (v *View) writeStatusLocked(f *frame, status Status) {
	// The page expects lists, not null.
	status.Parts = append([]Part{}, status.Parts...)
	status.Hearts = append([]Heart{}, status.Hearts...)
	status.Facts = append([]Fact{}, status.Facts...)
	var one frame
	one.event("status", status)
	if !bytes.Equal(one.buf, v.status) {
		v.status = one.buf
		f.buf = append(f.buf, one.buf...)
	}
}

func (v *View) sample(now time.Time) {
	s, ok := v.history.read(now)
	if !ok {
		return
	}
	var f frame
	f.event("sample", s)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.history.keep(s)
	v.snapshot = nil
	v.sendLocked(f.buf)
}

// sendLocked queues a frame for every page and disconnects pages whose queue is full.
func (v *View) sendLocked(data []byte) {
	if len(data) == 0 {
		return
	}
	for c := range v.clients {
		select {
		case c.frames <- data:
		default:
			v.metrics.dropped.Inc()
			v.removeLocked(c)
		}
	}
}

// removeLocked closes a client's channels, once: a client that is not in the map
// is closed already.
func (v *View) removeLocked(c *client) {
	if _, found := v.clients[c]; found {
		delete(v.clients, c)
		close(c.frames)
		close(c.cut)
	}
}

func (v *View) stop() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.over = true
	for c := range v.clients {
		v.removeLocked(c)
	}
}

// join adds a page, with the snapshot as the first frame in its queue. It returns
// nil if there are too many pages. Pass the client to leave afterwards.
func (v *View) join() *client {
	now := time.Now()
	if age, watched := v.age(now); !watched && age >= frameEvery {
		v.update(now)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.over || v.open >= v.opts.Clients {
		v.metrics.refused.Inc()
		return nil
	}
	if v.snapshot == nil {
		v.snapshot = v.takeSnapshotLocked(now)
	}
	c := &client{frames: make(chan []byte, queued), cut: make(chan struct{})}
	v.open++
	c.frames <- v.snapshot
	v.clients[c] = struct{}{}
	return c
}

func (v *View) leave(c *client) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.removeLocked(c)
	if !c.left {
		c.left = true
		v.open--
	}
}

// hello is the first event.
type hello struct {
	Version string       `json:"version"`
	Replica string       `json:"replica"`
	Now     int64        `json:"now"` // Unix milliseconds
	Devices int          `json:"devices"`
	Letters bool         `json:"letters"` // dead letters can be listed
	Columns []string     `json:"columns"` // of the samples, after the time
	Samples []sample     `json:"samples"`
	Alerts  []occurrence `json:"alerts"`
}

// takeSnapshotLocked returns the first data of a new page. Pages that open within
// the same second share it.
func (v *View) takeSnapshotLocked(now time.Time) []byte {
	h := hello{
		Version: v.opts.Version, Replica: v.opts.Replica, Now: now.UnixMilli(), Devices: len(v.fleet.rows),
		Letters: v.opts.DeadLetters != nil, Columns: []string{}, Samples: []sample{}, Alerts: v.fleet.events,
	}
	if h.Alerts == nil {
		h.Alerts = []occurrence{} // the page expects a list, not null
	}
	if v.history != nil {
		for _, c := range charted {
			h.Columns = append(h.Columns, c.name)
		}
		h.Samples = append(h.Samples, v.history.samples...)
	}
	f := frame{buf: make([]byte, 0, 16<<10+200*len(v.fleet.rows))}
	f.event("hello", h)
	f.buf = append(f.buf, v.status...)
	spots := 0
	for _, r := range v.fleet.rows {
		spots += len(r.trail)
	}
	nth := (spots + spotsPerSnapshot - 1) / spotsPerSnapshot
	rows := make([]*row, 0, rowsPerFrame)
	flush := func() {
		f.fleet(now, rows, changedName|changedFix|changedPoll, nil, nil)
		f.trails(rows, max(nth, 1))
		rows = rows[:0]
	}
	for _, r := range v.fleet.slots {
		if r == nil {
			continue
		}
		if rows = append(rows, r); len(rows) == rowsPerFrame {
			flush()
		}
	}
	flush()
	f.event("ready", json.RawMessage("{}"))
	return f.buf
}
