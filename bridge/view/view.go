package view

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Options of a [View]. Source and Log are required.
type Options struct {
	Source      Source
	Gatherer    prometheus.Gatherer // the bridge's metrics, for the charts; nil: none
	Status      func() Status       // called once a second; nil: nothing to say
	DeadLetters DeadLetters         // nil: their number only
	Version     string
	Replica     string // this replica's name
	Clients     int    // streams at once; 0: 16
	Log         *slog.Logger
	Registerer  prometheus.Registerer // nil: metrics are not registered
}

// Limits of the streams.
const (
	clientsAtOnce = 16
	tick          = time.Second // frames are this far apart
	// queued is how many frames a page may be behind before it is cut off.
	queued = 16
	// patience is how long partSize bytes may take to be written.
	patience = 15 * time.Second
	partSize = 64 << 10
	// longest is how long a page that was cut off may go on taking its last frame.
	longest = time.Minute
	// rowsPerFrame keeps a page from standing still over the picture it gets first;
	// of large fleets it gets the trails more coarsely.
	rowsPerFrame    = 1000
	spotsPerPicture = 60_000
)

// View is the live view's handler. Make it with [New]; it shows nothing new
// unless [View.Run] runs. It is safe for concurrent use.
type View struct {
	opts    Options
	metrics *metrics
	mux     *http.ServeMux
	history *history // nil: no charts

	mu      sync.Mutex
	fleet   *fleet
	status  []byte // the last event of it
	clients map[*client]struct{}
	open    int    // streams that hold a place; one that was cut off does until its handler is out of its write
	size    int    // of the last frame
	picture []byte // what a page gets first; nil: something changed since it was made
	over    bool   // Run has ended
}

// client is one open stream.
type client struct {
	frames chan []byte   // closed where it is cut off, or the view is over
	cut    chan struct{} // closed then, too: for a handler that is busy with a frame
	left   bool          // its handler has ended
}

// New returns a view with nothing in it.
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

// ServeHTTP serves the page at / and what belongs to it below /view/.
func (v *View) ServeHTTP(w http.ResponseWriter, r *http.Request) { v.mux.ServeHTTP(w, r) }

// Run keeps the view up to date until the context ends; then it ends every
// stream. It runs once.
func (v *View) Run(ctx context.Context) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	defer v.stop()
	var sampled time.Time
	for {
		now := time.Now()
		v.update(now)
		if v.history != nil && now.Sub(sampled) >= sampleEvery-tick/2 {
			sampled = now
			v.sample(now)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// update takes what has changed and tells it.
func (v *View) update(now time.Time) {
	var status Status
	if v.opts.Status != nil {
		status = v.opts.Status()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.opts.Source.Changed(func(d Device) { v.fleet.take(now, &d) })
	v.fleet.settled = v.fleet.settled || len(v.fleet.rows) > 0
	f := frame{buf: make([]byte, 0, v.size)}
	if v.opts.Status != nil {
		v.tellStatus(&f, status)
	}
	if len(v.clients) > 0 {
		f.fleet(now, v.fleet.changed, 0, v.fleet.gone, v.fleet.news)
	}
	v.fleet.told()
	v.picture, v.size = nil, len(f.buf)+len(f.buf)/8
	v.send(f.buf)
}

// tellStatus runs under the mutex.
func (v *View) tellStatus(f *frame, status Status) {
	// The page wants lists.
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
	v.picture = nil
	v.send(f.buf)
}

// send gives a frame to every page, and cuts those off that are too far behind.
// It runs under the mutex.
func (v *View) send(data []byte) {
	if len(data) == 0 {
		return
	}
	for c := range v.clients {
		select {
		case c.frames <- data:
		default:
			v.metrics.dropped.Inc()
			v.remove(c)
		}
	}
}

// remove runs under the mutex. Nothing is sent to a client that is not in the
// map, so that its channel is closed once.
func (v *View) remove(c *client) {
	if _, there := v.clients[c]; there {
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
		v.remove(c)
	}
}

// join adds a page and puts the picture of everything first into its queue. It
// is nil where there is no room. Who joined must leave.
func (v *View) join() *client {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.over || v.open >= v.opts.Clients {
		v.metrics.refused.Inc()
		return nil
	}
	if v.picture == nil {
		v.picture = v.paint(time.Now())
	}
	c := &client{frames: make(chan []byte, queued), cut: make(chan struct{})}
	v.open++
	c.frames <- v.picture
	v.clients[c] = struct{}{}
	return c
}

func (v *View) leave(c *client) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.remove(c)
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

// paint makes the picture of everything. It runs under the mutex; pages that come
// within the same second share one.
func (v *View) paint(now time.Time) []byte {
	h := hello{
		Version: v.opts.Version, Replica: v.opts.Replica, Now: now.UnixMilli(), Devices: len(v.fleet.rows),
		Letters: v.opts.DeadLetters != nil, Columns: []string{}, Samples: []sample{}, Alerts: v.fleet.events,
	}
	if h.Alerts == nil {
		h.Alerts = []occurrence{} // the page wants lists
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
	nth := (spots + spotsPerPicture - 1) / spotsPerPicture
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
