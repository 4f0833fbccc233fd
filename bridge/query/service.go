// Package query answers questions about devices over NATS, as a micro service
// that `nats micro` lists: the caller needs no account at the API, and every
// question passes the bridge's one token and one request budget.
//
// Each endpoint answers several requests at once, at most [Options.Limit] in
// all; one more is answered 429. Every answer comes within [Options.Timeout],
// which is shorter than callers usually wait. Replicas share the requests
// through the service's queue group, but for why: that one all are asked, and
// the replica that polls the device answers.
package query

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/trace"
	"plaspy-bridge/publisher"
)

// DefaultTimeout is below the 5 s that `nats req` waits.
const DefaultTimeout = 4 * time.Second

// API answers questions. It is used concurrently. [plaspy.Client] is the real
// one.
type API interface {
	DeviceList(ctx context.Context) (plaspy.Answer, error)
	Device(ctx context.Context, id string) (plaspy.Answer, error)
	LastLocation(ctx context.Context, id string, buf []byte) (plaspy.LastLocation, error)
	Locations(ctx context.Context, id string, body []byte, o plaspy.PostOptions) (plaspy.Answer, error)
	Alerts(ctx context.Context, id string, body []byte, o plaspy.PostOptions) (plaspy.Answer, error)
}

// Options configure a [Service].
type Options struct {
	Conn     *nats.Conn         // required
	Subjects publisher.Subjects // required; its prefix names the service
	API      API                // required
	// Why tells the last decisions on a device as JSON, from memory; ok is
	// false for a device that it does not know. Nil: there is no such endpoint.
	Why func(deviceID string) (answer []byte, ok bool)
	// Ours reports whether this replica polls a device. Every replica is asked why,
	// and only one knows: the others leave it the time to answer first. Nil: this
	// one polls all there are.
	Ours    func(deviceID string) bool
	Version string        // a semantic version; anything else is shown as 0.0.0
	Trace   *trace.Tracer // makes a span of each request; nil: none
	Timeout time.Duration // within which every request is answered; 0: DefaultTimeout
	Limit   int           // requests answered at once; 0: 32
	Log     *slog.Logger  // required
}

// Service is the query service. Its Run is called once.
type Service struct {
	opt   Options
	slots chan struct{} // one for each request that is being answered
	late  chan struct{} // likewise, where another replica has the better answer

	mu     sync.Mutex
	errors map[string]map[string]int // by endpoint and code
}

// New makes a service; it is not there before [Service.Run].
func New(o Options) (*Service, error) {
	if o.Conn == nil || o.API == nil || o.Log == nil || o.Subjects == "" {
		return nil, errors.New("query service needs a connection, subjects, an API and a log")
	}
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Limit <= 0 {
		o.Limit = 32
	}
	if !semantic.MatchString(o.Version) {
		o.Version = "0.0.0"
	}
	return &Service{opt: o, slots: make(chan struct{}, o.Limit), late: make(chan struct{}, lateFactor*o.Limit), errors: make(map[string]map[string]int)}, nil
}

// semantic is what the framework takes for a version, which has no v in front.
var semantic = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$`)

// answerer answers one request; device is empty where the endpoint is about no
// particular one.
type answerer func(ctx context.Context, device string, body []byte) ([]byte, error)

// Run serves until ctx ends, and then finishes what it has begun, within the
// timeout. It returns an error where the service cannot be set up.
func (s *Service) Run(ctx context.Context) error {
	svc, err := micro.AddService(s.opt.Conn, micro.Config{
		Name:         string(s.opt.Subjects),
		Version:      s.opt.Version,
		Description:  "Devices, locations and alerts of the Plaspy account, through plaspy-bridge",
		StatsHandler: s.stats,
		ErrorHandler: func(_ micro.Service, err *micro.NATSError) {
			s.opt.Log.Warn("query service reported an error", "err", err, "subject", err.Subject)
		},
	})
	if err != nil {
		return fmt.Errorf("add query service: %w", err)
	}
	// The context ends requests as late as their own timeout does: they may be
	// answered while the service stops.
	serving := context.WithoutCancel(ctx)
	for name, answer := range s.endpoints() {
		if err = s.add(serving, svc, name, answer); err != nil {
			break
		}
	}
	if err == nil {
		<-ctx.Done()
	}
	if stopErr := svc.Stop(); stopErr != nil && !errors.Is(stopErr, nats.ErrConnectionClosed) {
		err = errors.Join(err, fmt.Errorf("stop query service: %w", stopErr))
	}
	// Whoever holds all slots knows that nobody else does: what was begun is
	// answered, and nothing can begin.
	for range cap(s.slots) {
		s.slots <- struct{}{}
	}
	for range cap(s.late) {
		s.late <- struct{}{}
	}
	return err
}

func (s *Service) endpoints() map[string]answerer {
	api := s.opt.API
	all := map[string]answerer{
		"devices": func(ctx context.Context, _ string, _ []byte) ([]byte, error) { return body(api.DeviceList(ctx)) },
		"device":  func(ctx context.Context, id string, _ []byte) ([]byte, error) { return body(api.Device(ctx, id)) },
		"last": func(ctx context.Context, id string, _ []byte) ([]byte, error) {
			l, err := api.LastLocation(ctx, id, nil)
			return l.Buf, err
		},
		"locations": func(ctx context.Context, id string, request []byte) ([]byte, error) {
			post, err := rangeOf(request, false)
			if err != nil {
				return nil, err
			}
			return body(api.Locations(ctx, id, post, plaspy.PostOptions{}))
		},
		"alerts": func(ctx context.Context, id string, request []byte) ([]byte, error) {
			post, err := rangeOf(request, true)
			if err != nil {
				return nil, err
			}
			return body(api.Alerts(ctx, id, post, plaspy.PostOptions{}))
		},
	}
	if s.opt.Why != nil {
		all["why"] = s.why
	}
	return all
}

func body(a plaspy.Answer, err error) ([]byte, error) { return a.Body, err }

// othersFirst is how long the replica that polls a device has to tell why before
// the others say what they know.
const othersFirst = 300 * time.Millisecond

// lateFactor is how many more requests may wait for that than are answered at
// once. One more gets no answer but the other replica's.
const lateFactor = 8

func (s *Service) why(ctx context.Context, id string, _ []byte) ([]byte, error) {
	if !s.ours(id) {
		select {
		case <-time.After(othersFirst):
		case <-ctx.Done():
		}
	}
	answer, ok := s.opt.Why(id)
	if !ok {
		return nil, &failure{http.StatusNotFound, "the bridge does not know this device"}
	}
	return answer, nil
}

func (s *Service) ours(id string) bool { return s.opt.Ours == nil || s.opt.Ours(id) }

// add makes an endpoint. The framework calls handlers one after the other; the
// API takes its time, so that each request is answered beside the others.
func (s *Service) add(ctx context.Context, svc micro.Service, name string, answer answerer) error {
	subject := s.opt.Subjects.API() + "." + name
	prefix := ""
	if name != "devices" {
		prefix = subject + "."
		subject += ".*"
	}
	handler := micro.HandlerFunc(func(r micro.Request) {
		token, slots := strings.TrimPrefix(r.Subject(), prefix), s.slots
		if id, err := publisher.Decode(token); name == "why" && err == nil && !s.ours(id) {
			slots = s.late
		}
		select {
		case slots <- struct{}{}:
		default:
			if slots == s.slots { // else whoever polls it answers
				s.fail(name, r, &failure{http.StatusTooManyRequests, "too many queries at once"})
			}
			return
		}
		go func() {
			defer func() { <-slots }()
			s.serve(ctx, name, token, r, answer)
		}()
	})
	opts := []micro.EndpointOpt{micro.WithEndpointSubject(subject)}
	if name == "why" {
		opts = append(opts, micro.WithEndpointQueueGroupDisabled())
	}
	if err := svc.AddEndpoint(name, handler, opts...); err != nil {
		return fmt.Errorf("add query endpoint %s: %w", name, err)
	}
	return nil
}

func (s *Service) serve(ctx context.Context, name, token string, r micro.Request, answer answerer) {
	ctx, cancel := context.WithTimeout(plaspy.WithKind(ctx, plaspy.Query), s.opt.Timeout)
	defer cancel()
	ctx, span := s.begin(ctx, name, r)
	data, err := s.answer(ctx, name, token, r, answer)
	if err != nil {
		f := judge(ctx, err)
		span.EndQuery(f.code)
		s.fail(name, r, f)
		return
	}
	span.EndQuery(http.StatusOK)
	s.respond(r, data, nats.Header{"content-type": {"application/json"}})
}

// begin begins the span of a request, a child of the caller's.
func (s *Service) begin(ctx context.Context, name string, r micro.Request) (context.Context, trace.Span) {
	if s.opt.Trace == nil {
		return ctx, trace.Span{}
	}
	template := s.opt.Subjects.API() + "." + name
	if name != "devices" {
		template += ".{device}"
	}
	return s.opt.Trace.Query(ctx, r.Headers(), trace.Message{Subject: r.Subject(), Template: template})
}

func (s *Service) answer(ctx context.Context, name, token string, r micro.Request, answer answerer) ([]byte, error) {
	device := ""
	if name != "devices" {
		var err error
		if device, err = publisher.Decode(token); err != nil {
			return nil, &failure{http.StatusBadRequest, err.Error()}
		}
	}
	data, err := answer(ctx, device, r.Data())
	if err == nil && int64(len(data)) > s.opt.Conn.MaxPayload() {
		err = &failure{http.StatusBadGateway, fmt.Sprintf("the answer is %d bytes, more than NATS carries", len(data))}
	}
	return data, err
}

// respond answers by itself: the framework's own ways write to the request after
// its handler has returned, when the framework reads it.
func (s *Service) respond(r micro.Request, data []byte, header nats.Header) {
	m := &nats.Msg{Subject: r.Reply(), Data: data, Header: header}
	if err := s.opt.Conn.PublishMsg(m); err != nil {
		s.opt.Log.Debug("query could not be answered", "err", err, "subject", r.Subject())
	}
}

// failure is an answer that is an error.
type failure struct {
	code int // as HTTP has them
	text string
}

// Error tells code and text.
func (f *failure) Error() string { return strconv.Itoa(f.code) + " " + f.text }

// judge finds the code of an error.
func judge(ctx context.Context, err error) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	if _, ok := errors.AsType[*plaspy.IDError](err); ok {
		return &failure{http.StatusBadRequest, err.Error()}
	}
	if errors.Is(err, plaspy.ErrNoBudget) {
		return &failure{http.StatusTooManyRequests, "the request budget has no room for queries"}
	}
	e, ok := errors.AsType[*plaspy.Error](err)
	switch {
	case ctx.Err() != nil, ok && e.Timeout():
		return &failure{http.StatusGatewayTimeout, "the API did not answer in time"}
	case ok && e.Status >= 300:
		return &failure{e.Status, e.Message}
	case ok: // no answer, or one that makes no sense
		return &failure{http.StatusBadGateway, e.Message}
	}
	return &failure{http.StatusInternalServerError, "the bridge could not ask the API"}
}

func (s *Service) fail(name string, r micro.Request, f *failure) {
	code := strconv.Itoa(f.code)
	s.mu.Lock()
	if s.errors[name] == nil {
		s.errors[name] = make(map[string]int)
	}
	s.errors[name][code]++
	s.mu.Unlock()
	text := f.text
	if text == "" {
		text = http.StatusText(f.code)
	}
	s.respond(r, nil, nats.Header{micro.ErrorHeader: {headerText(text)}, micro.ErrorCodeHeader: {code}})
}

// headerText makes a text the value of a header.
func headerText(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

// stats adds the errors by code, which the framework does not see: it counts
// only those of handlers that answer before they return.
func (s *Service) stats(e *micro.Endpoint) any {
	s.mu.Lock()
	defer s.mu.Unlock()
	codes := make(map[string]int, len(s.errors[e.Name]))
	maps.Copy(codes, s.errors[e.Name])
	data, err := json.Marshal(map[string]any{"errors_by_code": codes, "under_way": len(s.slots)})
	if err != nil { // cannot happen: strings and numbers marshal
		return nil
	}
	return json.RawMessage(data)
}
