// Package query answers questions about devices over NATS, as a micro service
// that `nats micro` lists: the caller needs no account at the API, and every
// question uses the bridge's one token and one request budget.
//
// Each endpoint answers several requests at once, at most [Options.Limit] in
// all; one more is answered 429. Every answer comes within [Options.Timeout],
// which is shorter than callers usually wait. Replicas share the requests
// through a queue group, except for why and poll: all replicas receive these
// requests, and the replica that polls the device answers.
//
// NATS does not check a request's reply subject against the requester's
// permissions, so a service that answers any reply subject publishes on behalf
// of its callers. This one answers inboxes only, the discovery verbs under $SRV
// included. That is why it does not use the micro framework's own service, which
// answers any reply subject; the wire format is the framework's (NATS ADR-32).
package query

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/trace"
	"plaspy-bridge/publisher"
)

// defaultTimeout is below the 5 s that `nats req` waits.
const defaultTimeout = 4 * time.Second

// Devices answers questions about devices. It is used concurrently.
// [plaspy.Client] is the real one.
type Devices interface {
	DeviceList(ctx context.Context) (plaspy.Answer, error)
	Device(ctx context.Context, id string) (plaspy.Answer, error)
	LastLocation(ctx context.Context, id string, buf []byte) (plaspy.LastLocation, error)
}

// History answers questions about a range of time. It is used concurrently.
// [plaspy.Client] is the real one.
type History interface {
	Locations(ctx context.Context, id string, body []byte, o plaspy.PostOptions) (plaspy.Answer, error)
	Alerts(ctx context.Context, id string, body []byte, o plaspy.PostOptions) (plaspy.Answer, error)
}

// Options configure a [Service].
type Options struct {
	Conn     *nats.Conn         // required
	Subjects publisher.Subjects // required; its prefix is the service's name
	Devices  Devices            // required
	History  History            // required
	// Why returns the last decisions on a device as JSON, from memory; ok is
	// false for an unknown device. Nil means that there is no such endpoint.
	Why func(deviceID string) (answer []byte, ok bool)
	// Poll polls a device now, and returns the result as JSON. Its errors are those
	// of [Refuse] and [Elsewhere], of the API and of ctx. Nil means that there is no
	// such endpoint.
	Poll func(ctx context.Context, deviceID string) (answer []byte, err error)
	// Ours reports whether this replica polls a device. Every replica receives a
	// why request, and the others give the one that polls the device time to
	// answer first. Nil means that this replica polls every device.
	Ours    func(deviceID string) bool
	Version string        // a semantic version; anything else is shown as 0.0.0
	Trace   *trace.Tracer // makes a span of each request; optional
	Timeout time.Duration // within which every request is answered; 0 means 4 s
	Limit   int           // requests answered at once; 0 means 32
	Log     *slog.Logger  // required
}

// Service is the query service. Make it with [New], run it with [Service.Run].
type Service struct {
	opt       Options
	id        string // of this instance, for the discovery verbs
	started   time.Time
	endpoints []*endpoint
	slots     chan struct{} // one for each request that is being answered
	late      chan struct{} // likewise, for why requests about other replicas' devices
	pause     time.Duration // between tries to subscribe again after a denial
	// over ends the time that other replicas have to answer first. A test sets it; nil
	// means after othersFirst.
	over   <-chan time.Time
	ending <-chan struct{} // closed when Run is to end; nil before Run
}

// New makes a service. It subscribes to nothing before [Service.Run].
func New(o Options) (*Service, error) {
	if o.Conn == nil || o.Devices == nil || o.History == nil || o.Log == nil || o.Subjects == "" {
		return nil, errors.New("query service needs a connection, subjects, an API and a log")
	}
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	if o.Limit <= 0 {
		o.Limit = 32
	}
	if !semantic.MatchString(o.Version) {
		o.Version = "0.0.0"
	}
	s := &Service{
		opt: o, id: rand.Text(), started: time.Now().UTC(), pause: 10 * time.Second,
		slots: make(chan struct{}, o.Limit), late: make(chan struct{}, lateFactor*o.Limit),
	}
	s.endpoints = s.routes()
	return s, nil
}

// semantic matches a version as service discovery wants it, without a leading v.
var semantic = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$`)

// Needs lists the permissions that a [Service] needs of its NATS user. inboxes
// are the prefixes of its callers' inboxes.
func Needs(s publisher.Subjects, inboxes ...string) []publisher.Permission {
	const use = "there is no query service"
	all := []publisher.Permission{
		{Subscribe: s.API() + ".>", Try: s.API() + "." + publisher.Absent, Why: use},
		{Subscribe: micro.APIPrefix + ".>", Try: micro.APIPrefix + "." + publisher.Absent, Why: use},
	}
	for _, inbox := range inboxes {
		all = append(all, publisher.Permission{
			Publish: inbox + ".>", Try: inbox + "." + publisher.Absent, Why: "the query service's answers do not arrive",
		})
	}
	return all
}

// Run serves until ctx is cancelled, and then finishes the requests that it has
// begun, within the timeout. If NATS does not permit one of the subscriptions,
// Run logs that and subscribes again from time to time. It may be called again
// after it returned.
func (s *Service) Run(ctx context.Context) error {
	s.ending = ctx.Done()
	denied := make(chan error, 1)
	restore := s.watchDenials(denied)
	defer restore()
	for logged := ""; ; {
		// Requests outlive ctx by at most their own timeout: they may be
		// answered while the service stops.
		subs, err := s.subscribe(context.WithoutCancel(ctx))
		if err == nil {
			select {
			case <-ctx.Done():
			case err = <-denied:
			}
		}
		err = errors.Join(s.stop(subs), err)
		switch {
		case ctx.Err() != nil:
			return nil
		case !errors.Is(err, nats.ErrPermissionViolation):
			return err
		case err.Error() != logged:
			logged = err.Error()
			s.opt.Log.Warn("no permission for the query service, retrying", "err", err, "delay", s.pause)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(s.pause):
		}
		select {
		case <-denied: //nolint:errcheck // another subscription of the same try
		default:
		}
	}
}

// watchDenials sends permission violations of the service's subscriptions to
// denied, and every error to the previous handler. The client's error names the
// subscription only in its text.
func (s *Service) watchDenials(denied chan<- error) (restore func()) {
	nc := s.opt.Conn
	before := nc.ErrorHandler()
	nc.SetErrorHandler(func(c *nats.Conn, sub *nats.Subscription, err error) {
		if before != nil {
			before(c, sub, err)
		}
		if !errors.Is(err, nats.ErrPermissionViolation) || !s.about(err.Error()) {
			return
		}
		select {
		case denied <- err:
		default:
		}
	})
	return func() { nc.SetErrorHandler(before) }
}

// about reports whether a permission violation is about a subscription of the
// service.
func (s *Service) about(text string) bool {
	_, subject, _ := strings.Cut(text, `Subscription to "`)
	return strings.HasPrefix(subject, s.opt.Subjects.API()+".") || strings.HasPrefix(subject, micro.APIPrefix+".")
}

// subscribe subscribes to the endpoints and the discovery verbs.
func (s *Service) subscribe(ctx context.Context) ([]*nats.Subscription, error) {
	var subs []*nats.Subscription
	add := func(subject, queue string, handle nats.MsgHandler) error {
		sub, err := s.opt.Conn.QueueSubscribe(subject, queue, handle)
		if err != nil {
			return fmt.Errorf("subscribe to %s: %w", subject, err)
		}
		subs = append(subs, sub)
		return nil
	}
	for _, e := range s.endpoints {
		if err := add(e.subject, e.queue, func(m *nats.Msg) { s.receive(ctx, e, m) }); err != nil {
			return subs, err
		}
	}
	for subject, answer := range s.verbs() {
		if err := add(subject, "", func(m *nats.Msg) { s.discover(m, answer) }); err != nil {
			return subs, err
		}
	}
	return subs, nil
}

// stop drains the subscriptions and waits until every request is answered. All of
// them together have the time that one request has. Without a connection there is
// nothing to drain: no request arrives, and no answer leaves.
func (s *Service) stop(subs []*nats.Subscription) error {
	var errs []error
	var drained []chan struct{}
	for _, sub := range subs {
		closed := make(chan struct{})
		sub.SetClosedHandler(func(string) { close(closed) })
		end := sub.Drain
		if !s.opt.Conn.IsConnected() {
			end = sub.Unsubscribe
		}
		switch err := end(); {
		case err == nil:
			drained = append(drained, closed)
		case !errors.Is(err, nats.ErrConnectionClosed) && !errors.Is(err, nats.ErrBadSubscription):
			errs = append(errs, fmt.Errorf("stop query service: %w", err))
		}
	}
	limit := time.After(s.opt.Timeout)
	for _, closed := range drained {
		select {
		case <-closed:
			continue
		case <-limit:
		}
		break // their drains end with the connection
	}
	// With all slots taken, no request is under way.
	for _, slots := range []chan struct{}{s.slots, s.late} {
		for range cap(slots) {
			slots <- struct{}{}
		}
	}
	for _, slots := range []chan struct{}{s.slots, s.late} {
		for range cap(slots) {
			<-slots
		}
	}
	return errors.Join(errs...)
}
