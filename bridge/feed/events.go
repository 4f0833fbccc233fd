package feed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/publisher"
)

const (
	// patience limits the time to write one event.
	patience = 15 * time.Second
	// reconnect is the time before a client connects again, in milliseconds.
	reconnect = 2000
)

// kinds of events.
var kinds = []string{"location", "alert", "device"}

// serveEvents answers /events until the client disconnects or is too slow, or the
// server stops.
func (f *Feed) serveEvents(w http.ResponseWriter, r *http.Request) {
	filters, err := f.filters(r)
	last, resumes, idErr := lastEvent(r)
	if err = errors.Join(err, idErr); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	select {
	case f.places <- struct{}{}:
		defer func() { <-f.places }()
	default:
		w.Header().Set("Retry-After", "10")
		http.Error(w, "Too many streams of events are open; close one.", http.StatusServiceUnavailable)
		return
	}
	out := &stream{w: w, rc: http.NewResponseController(w)}
	consumer, reset, err := f.consumer(r.Context(), filters, last, resumes)
	if err != nil {
		f.opts.Log.Debug("could not read events", "err", err)
		http.Error(w, "Could not read the events from the stream.", http.StatusServiceUnavailable)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // nginx must not buffer the stream
	if r.Method == http.MethodHead {
		return
	}
	hello := fmt.Appendf(nil, "retry: %d\n\n", reconnect)
	if reset {
		hello = append(hello, "event: reset\ndata: {}\n\n"...)
	}
	if out.write(hello) == nil {
		f.follow(r.Context(), out, consumer)
	}
}

// follow writes the messages of a consumer to a client.
func (f *Feed) follow(ctx context.Context, out *stream, consumer jetstream.Consumer) {
	it, err := consumer.Messages(jetstream.PullMaxMessages(64))
	if err != nil {
		f.opts.Log.Debug("could not read events", "err", err)
		return
	}
	defer it.Stop()
	defer context.AfterFunc(ctx, it.Stop)()
	for {
		m, err := it.Next(jetstream.NextMaxWait(f.heartbeat))
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, nats.ErrTimeout):
			if out.write([]byte(": nothing new\n\n")) != nil {
				return
			}
		case err != nil: // the client reconnects with its last id
			f.opts.Log.Debug("event stream ended", "err", err)
			return
		default:
			meta, err := m.Metadata()
			if err != nil {
				return
			}
			kind, _, _, ok := f.opts.Subjects.Kind(m.Subject())
			if ok && out.write(encode(meta.Sequence.Stream, kind, m.Data())) != nil {
				return
			}
		}
	}
}

// encode writes a message as a server-sent event. A line end in the message, which
// JSON allows between its parts, begins another data line.
func encode(seq uint64, kind string, data []byte) []byte {
	b := fmt.Appendf(make([]byte, 0, len(data)+64), "id: %d\nevent: %s\n", seq, kind)
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	data = bytes.ReplaceAll(data, []byte("\r"), []byte("\n"))
	for line := range bytes.SplitSeq(data, []byte("\n")) {
		b = append(append(append(b, "data: "...), line...), '\n')
	}
	return append(b, '\n')
}

// filters returns the subjects that a request asks for.
func (f *Feed) filters(r *http.Request) ([]string, error) {
	query := r.URL.Query()
	wanted, tokens := query["kind"], []string{"*"}
	if len(wanted) == 0 {
		wanted = kinds
	}
	if devices := query["device"]; len(devices) > 0 {
		tokens = nil
		for _, id := range devices {
			token, err := publisher.Token(id)
			if err != nil {
				return nil, fmt.Errorf("device: %w", err)
			}
			tokens = append(tokens, token)
		}
	}
	const most = 100
	if len(wanted)*len(tokens) > most {
		return nil, fmt.Errorf("more than %d devices and kinds; leave device out and filter the events yourself", most)
	}
	var subjects []string
	for _, kind := range wanted {
		for _, token := range tokens {
			switch kind {
			case "location":
				subjects = append(subjects, f.opts.Subjects.Location(token))
			case "alert":
				subjects = append(subjects, f.opts.Subjects.Alert(token, "*"))
			case "device":
				subjects = append(subjects, f.opts.Subjects.Device(token))
			default:
				return nil, fmt.Errorf("kind must be one of %v", kinds)
			}
		}
	}
	slices.Sort(subjects)
	return slices.Compact(subjects), nil
}

// lastEvent returns the sequence after which a client resumes.
func lastEvent(r *http.Request) (seq uint64, ok bool, err error) {
	text := r.Header.Get("Last-Event-ID")
	if text == "" {
		return 0, false, nil
	}
	if seq, err = strconv.ParseUint(text, 10, 63); err != nil {
		return 0, false, errors.New("Last-Event-ID must be the id of an event, a whole number")
	}
	return seq, true, nil
}

// consumer makes a consumer that begins after a sequence, or with the next message.
// reset reports that the sequence is not of this stream, which was created again.
func (f *Feed) consumer(ctx context.Context, filters []string, last uint64, resumes bool) (c jetstream.Consumer, reset bool, err error) {
	cfg := jetstream.OrderedConsumerConfig{
		FilterSubjects: filters, DeliverPolicy: jetstream.DeliverNewPolicy, InactiveThreshold: 2 * f.heartbeat,
	}
	if resumes {
		s, err := f.opts.JetStream.Stream(ctx, f.opts.Subjects.Events())
		if err != nil {
			return nil, false, err
		}
		if reset = last > s.CachedInfo().State.LastSeq; !reset {
			cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, last+1
		}
	}
	c, err = f.opts.JetStream.OrderedConsumer(ctx, f.opts.Subjects.Events(), cfg)
	return c, reset, err
}

// stream writes to one client.
type stream struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

// write writes and flushes, within patience.
func (s *stream) write(data []byte) error {
	// The server's own deadline is too short for a stream.
	if err := s.rc.SetWriteDeadline(time.Now().Add(patience)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := s.w.Write(data); err != nil {
		return err
	}
	return s.rc.Flush()
}
