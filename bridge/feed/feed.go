package feed

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"plaspy-bridge/publisher"
)

// Options of a [Feed]. All but Groups, Clients and Registerer are required.
type Options struct {
	// State reads the newest messages of every device, as [publisher.Reader.State].
	State     func(ctx context.Context, allAlerts bool, f func(publisher.Stored)) (publisher.Mark, error)
	JetStream jetstream.JetStream
	Subjects  publisher.Subjects
	// Groups returns the members of each group, by the group's id and by its name.
	// Nil means that there are none.
	Groups     func(ctx context.Context) (map[string][]string, error)
	Clients    int // of /events at once; 0 means 16
	Log        *slog.Logger
	Registerer prometheus.Registerer // nil means that metrics are not registered
}

const (
	clientsAtOnce = 16
	// stateAge is how old the cached positions may be, and groupsAge the cached
	// groups. Many concurrent requests cost one read.
	stateAge  = time.Second
	groupsAge = 5 * time.Minute
	readLimit = 20 * time.Second
)

// Feed is the handler of /devices.geojson and /events. Make it with [New]. It is
// safe for concurrent use.
type Feed struct {
	opts      Options
	mux       *http.ServeMux
	positions *cached[[]position]
	groups    *cached[map[string][]string]
	places    chan struct{} // one for each client of /events
	heartbeat time.Duration
}

// New makes a feed.
func New(o Options) *Feed {
	if o.Clients <= 0 {
		o.Clients = clientsAtOnce
	}
	f := &Feed{opts: o, places: make(chan struct{}, o.Clients), heartbeat: 15 * time.Second}
	f.positions = newCached(stateAge, f.readPositions)
	if o.Groups != nil {
		f.groups = newCached(groupsAge, o.Groups)
	}
	f.mux = http.NewServeMux()
	f.mux.HandleFunc("GET /devices.geojson", f.serveDevices)
	f.mux.HandleFunc("GET /events", f.serveEvents)
	if o.Registerer != nil {
		o.Registerer.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "plaspy_bridge_event_clients", Help: "Open streams of server-sent events at /events.",
		}, func() float64 { return float64(len(f.places)) }))
	}
	return f
}

// ServeHTTP serves /devices.geojson and /events.
func (f *Feed) ServeHTTP(w http.ResponseWriter, r *http.Request) { f.mux.ServeHTTP(w, r) }

// cached is a value that is read again if it is too old when it is requested.
// Concurrent callers wait for one read together, each until its context ends.
type cached[T any] struct {
	age  time.Duration
	read func(context.Context) (T, error)

	turn  chan struct{} // holds one value while the fields below are in use
	value T
	at    time.Time
}

func newCached[T any](age time.Duration, read func(context.Context) (T, error)) *cached[T] {
	c := &cached[T]{age: age, read: read, turn: make(chan struct{}, 1)}
	c.turn <- struct{}{}
	return c
}

func (c *cached[T]) get(ctx context.Context) (T, error) {
	var none T
	select {
	case <-c.turn:
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
	defer func() { c.turn <- struct{}{} }()
	if !c.at.IsZero() && time.Since(c.at) < c.age {
		return c.value, nil
	}
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	value, err := c.read(ctx)
	if err != nil {
		return none, err
	}
	c.value, c.at = value, time.Now()
	return value, nil
}
