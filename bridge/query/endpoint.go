package query

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"plaspy-bridge/auth/redact"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/trace"
	"plaspy-bridge/publisher"
)

// answerer answers one request. device is empty for an endpoint that is not
// about a particular device.
type answerer func(ctx context.Context, device string, body []byte) ([]byte, error)

// endpoint is one kind of question.
type endpoint struct {
	name    string
	subject string // of the subscription
	prefix  string // of subject, before the device's token; empty without one
	queue   string // empty: every replica receives every request
	answer  answerer
	count   counter
}

// othersFirst is how long the other replicas wait for the one that polls a
// device to answer why.
const othersFirst = 300 * time.Millisecond

// lateFactor bounds the requests that wait for that, in multiples of the requests
// answered at once. This replica does not answer a request above the bound.
const lateFactor = 8

// routes lists the endpoints.
func (s *Service) routes() []*endpoint {
	devices, history, root := s.opt.Devices, s.opt.History, s.opt.Subjects.API()+"."
	of := func(name string, answer answerer) *endpoint {
		return &endpoint{name: name, subject: root + name + ".*", prefix: root + name + ".", queue: micro.DefaultQueueGroup, answer: answer}
	}
	all := []*endpoint{
		{name: "devices", subject: root + "devices", queue: micro.DefaultQueueGroup, answer: func(ctx context.Context, _ string, _ []byte) ([]byte, error) {
			return body(devices.DeviceList(ctx))
		}},
		of("device", func(ctx context.Context, id string, _ []byte) ([]byte, error) { return body(devices.Device(ctx, id)) }),
		of("last", func(ctx context.Context, id string, _ []byte) ([]byte, error) {
			l, err := devices.LastLocation(ctx, id, nil)
			return l.Buf, err
		}),
		of("locations", ranged(history.Locations, false)),
		of("alerts", ranged(history.Alerts, true)),
	}
	if s.opt.Why != nil {
		why := of("why", s.why)
		why.queue = ""
		all = append(all, why)
	}
	if s.opt.Poll != nil {
		poll := of("poll", s.poll)
		poll.queue = ""
		all = append(all, poll)
	}
	return all
}

func body(a plaspy.Answer, err error) ([]byte, error) { return a.Body, err }

// ranged makes an answerer of a request for a range of time.
func ranged(ask func(context.Context, string, []byte, plaspy.PostOptions) (plaspy.Answer, error), withAlert bool) answerer {
	return func(ctx context.Context, id string, request []byte) ([]byte, error) {
		post, err := rangeOf(request, withAlert)
		if err != nil {
			return nil, err
		}
		return body(ask(ctx, id, post, plaspy.PostOptions{}))
	}
}

func (s *Service) why(ctx context.Context, id string, _ []byte) ([]byte, error) {
	if !s.ours(id) {
		s.awaitOthers(ctx)
	}
	answer, ok := s.opt.Why(id)
	if !ok {
		return nil, &failure{http.StatusNotFound, "the bridge does not know this device"}
	}
	return answer, nil
}

// awaitOthers gives the replica that polls a device time to answer.
func (s *Service) awaitOthers(ctx context.Context) {
	over := s.over
	if over == nil {
		over = time.After(othersFirst)
	}
	select {
	case <-over:
	case <-ctx.Done():
	}
}

// errSilent means that another replica answers.
var errSilent = errors.New("another replica answers")

// poll polls a device now, if this replica polls it. Another replica answers only if
// no replica may know the device.
func (s *Service) poll(ctx context.Context, id string, _ []byte) ([]byte, error) {
	others := !s.ours(id)
	if others {
		s.awaitOthers(ctx)
	}
	data, err := s.opt.Poll(ctx, id)
	f, refused := errors.AsType[*failure](err)
	switch {
	case refused && f.code == codeElsewhere:
		return nil, errSilent
	case refused && others && f.code == http.StatusServiceUnavailable:
		select {
		case <-ctx.Done(): // the replica that polls it has answered by then
		case <-s.ending:
			return nil, errSilent
		}
	}
	return data, err
}

func (s *Service) ours(id string) bool { return s.opt.Ours == nil || s.opt.Ours(id) }

// receive answers a request in a goroutine of its own: NATS delivers the
// requests of a subscription one after the other, and the API takes its time.
func (s *Service) receive(ctx context.Context, e *endpoint, m *nats.Msg) {
	if !s.answerable(m.Reply) {
		e.count.failed(&failure{http.StatusForbidden, "the reply subject is not an inbox"}, 0)
		s.opt.Log.Debug("query refused, its reply subject is not an inbox", "subject", m.Subject)
		return
	}
	token, slots := "", s.slots
	if e.prefix != "" {
		token = strings.TrimPrefix(m.Subject, e.prefix)
	}
	if id, err := publisher.Decode(token); e.queue == "" && err == nil && !s.ours(id) {
		slots = s.late
	}
	select {
	case slots <- struct{}{}:
	default:
		if slots == s.slots { // otherwise the replica that polls the device answers
			s.fail(e, m, &failure{http.StatusTooManyRequests, "too many queries at once"}, 0)
		}
		return
	}
	go func() {
		defer func() { <-slots }()
		s.serve(ctx, e, token, m)
	}()
}

// answerable reports whether an answer may go to a subject: an inbox, or the
// reply subject of an imported service. The requester chooses the subject, and
// this user's permissions apply, so no subject that means something to the
// server or to the bridge is one.
func (s *Service) answerable(reply string) bool {
	first, rest, _ := strings.Cut(reply, ".")
	if !strings.HasPrefix(first, "_") || first == string(s.opt.Subjects) {
		return false
	}
	return publisher.Literal(rest)
}

func (s *Service) serve(ctx context.Context, e *endpoint, token string, m *nats.Msg) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(plaspy.WithKind(ctx, plaspy.Query), s.opt.Timeout)
	defer cancel()
	ctx, span := s.begin(ctx, e, m)
	data, err := s.answer(ctx, e, token, m.Data)
	if errors.Is(err, errSilent) {
		span.EndQuery(http.StatusOK)
		return
	}
	if err != nil {
		f := judge(ctx, err)
		span.EndQuery(f.code)
		s.fail(e, m, f, time.Since(began))
		return
	}
	span.EndQuery(http.StatusOK)
	e.count.answered(time.Since(began))
	s.respond(m, data, nats.Header{"content-type": {"application/json"}})
}

// begin begins the span of a request, a child of the caller's.
func (s *Service) begin(ctx context.Context, e *endpoint, m *nats.Msg) (context.Context, trace.Span) {
	if s.opt.Trace == nil {
		return ctx, trace.Span{}
	}
	template := e.subject
	if e.prefix != "" {
		template = e.prefix + "{device}"
	}
	return s.opt.Trace.Query(ctx, m.Header, trace.Message{Subject: m.Subject, Template: template})
}

func (s *Service) answer(ctx context.Context, e *endpoint, token string, request []byte) ([]byte, error) {
	device := ""
	if e.prefix != "" {
		var err error
		if device, err = publisher.Decode(token); err != nil {
			return nil, &failure{http.StatusBadRequest, err.Error()}
		}
	}
	data, err := e.answer(ctx, device, request)
	if err == nil && int64(len(data)+headerSize) > s.opt.Conn.MaxPayload() {
		err = &failure{http.StatusBadGateway, "the answer is " + strconv.Itoa(len(data)) + " bytes, more than NATS carries"}
	}
	return data, err
}

// headerSize is how many bytes the header of an answer takes, which count
// towards the server's max_payload.
const headerSize = len("NATS/1.0\r\ncontent-type: application/json\r\n\r\n")

// respond publishes an answer.
func (s *Service) respond(m *nats.Msg, data []byte, header nats.Header) {
	if err := s.opt.Conn.PublishMsg(&nats.Msg{Subject: m.Reply, Data: data, Header: header}); err != nil {
		s.opt.Log.Debug("query could not be answered", "err", err, "subject", m.Subject)
	}
}

// fail answers a request with an error, in the headers of the service framework.
func (s *Service) fail(e *endpoint, m *nats.Msg, f *failure, took time.Duration) {
	e.count.failed(f, took)
	text := f.text
	if text == "" {
		text = http.StatusText(f.code)
	}
	s.respond(m, nil, nats.Header{micro.ErrorHeader: {redact.Line(text, maxErrorText)}, micro.ErrorCodeHeader: {strconv.Itoa(f.code)}})
}

// maxErrorText bounds the text of an error in a header, in bytes.
const maxErrorText = 1 << 10
