package outbound

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	sdktest "go.opentelemetry.io/otel/sdk/trace/tracetest"
	api "go.opentelemetry.io/otel/trace"

	"plaspy-bridge/bridge/outbound/decision"
	"plaspy-bridge/bridge/outbound/schedule"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/trace"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

func traced(o Options, more ...sdk.TracerProviderOption) (Options, *sdktest.SpanRecorder) {
	r := sdktest.NewSpanRecorder()
	o.Trace = trace.From(sdk.NewTracerProvider(append(more, sdk.WithSpanProcessor(r))...))
	return o, r
}

// ofName gives the ended spans of a name.
func ofName(r *sdktest.SpanRecorder, name string) []sdk.ReadOnlySpan {
	return slices.DeleteFunc(r.Ended(), func(s sdk.ReadOnlySpan) bool { return s.Name() != name })
}

// said is the value of an attribute.
func said(s sdk.ReadOnlySpan, key string) string {
	for _, a := range s.Attributes() {
		if a.Key == attribute.Key(key) {
			return a.Value.String()
		}
	}
	return ""
}

func parentOf(s api.SpanContext) string {
	return "00-" + s.TraceID().String() + "-" + s.SpanID().String() + "-01"
}

func TestPollAndItsEventsAreOneTrace(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	a := newFakeAPI("a")
	a.show("a", at(1, 1, `"alerts":["Speed"]`))
	o, spans := traced(options())
	r := newRig(t, srv, a, o)
	r.until("the alert", func(e event) bool { return e.subject == "plaspy.alert.a.Speed" })
	r.polls("a", 3)
	a.set(func() {
		a.next["a"] = func(int) (string, error) {
			return "", &plaspy.Error{Endpoint: "last_location", Status: 404, Message: "gone"}
		}
	})
	r.polls("a", 2)
	r.stop()

	sent := map[string]event{}
	for _, e := range r.events() {
		sent[e.subject] = e
	}
	polls := ofName(spans, "poll")
	changed := polls[0]
	if got := said(changed, "plaspy.result") + said(changed, "plaspy.published") + said(changed, "plaspy.device.id"); got != "changed2a" || changed.Parent().IsValid() {
		t.Errorf("the first poll's span is %s and has the parent %v", got, changed.Parent())
	}
	root := changed.SpanContext()
	for subject, template := range map[string]string{
		"plaspy.location.a": "plaspy.location.{device}", "plaspy.alert.a.Speed": "plaspy.alert.{device}.{alert}", "plaspy.device.a": "plaspy.device.{device}",
	} {
		list := ofName(spans, "publish "+template)
		if len(list) != 1 {
			t.Fatalf("%d spans of events to %s, want 1", len(list), subject)
		}
		s, header := list[0], sent[subject].header
		if got, want := header.Get(trace.HeaderParent), parentOf(s.SpanContext()); got != want {
			t.Errorf("%s carries %s, want its span's %s", subject, got, want)
		}
		if subject == "plaspy.device.a" {
			root = ofName(spans, "list")[0].SpanContext()
		}
		if s.Parent().SpanID() != root.SpanID() || s.SpanContext().TraceID() != root.TraceID() {
			t.Errorf("the span of %s has the wrong parent", subject)
		}
		root = changed.SpanContext()
		if said(s, "messaging.message.id") != header.Get(nats.MsgIdHdr) || said(s, "messaging.destination.name") != subject || said(s, "plaspy.stream.sequence") == "" {
			t.Errorf("the span of %s has %v", subject, s.Attributes())
		}
	}
	results := map[string]sdk.ReadOnlySpan{}
	for _, p := range polls {
		results[said(p, "plaspy.result")] = p
	}
	if u := results["unchanged"]; u == nil || u.ChildSpanCount() != 0 || said(u, "error.type") != "" {
		t.Errorf("no correct span of an unchanged poll: %v", results)
	}
	if e := results["error"]; e == nil || said(e, "error.type") != "reject" || e.Status().Code.String() != "Error" {
		t.Errorf("no correct span of a failed poll: %v", results)
	}
	for _, s := range spans.Started() {
		if s.EndTime().IsZero() {
			t.Errorf("%s was not ended", s.Name())
		}
		for _, attr := range s.Attributes() {
			if strings.Contains(attr.Value.String(), "74.1") {
				t.Errorf("%s contains a position: %v", s.Name(), s.Attributes())
			}
		}
	}
}

// The id of an event and its content, except for the trace's headers, do not
// depend on tracing: a duplicate stays one across replicas that differ in it.
func TestTracingDoesNotChangeEvents(t *testing.T) {
	t.Parallel()
	publish := func(o Options) map[string]event {
		a := newFakeAPI("a")
		a.show("a", at(1, 1, `"alerts":["Speed"]`))
		r := newRig(t, natstest.Start(t), a, o)
		r.until("the alert", func(e event) bool { return e.subject == "plaspy.alert.a.Speed" })
		r.stop()
		all := map[string]event{}
		for _, e := range r.events() {
			all[e.subject] = e
		}
		return all
	}
	on, _ := traced(options())
	unsampled, _ := traced(options(), sdk.WithSampler(sdk.NeverSample()))
	off := publish(options())
	for name, o := range map[string]Options{"01": on, "00": unsampled} {
		for subject, e := range publish(o) {
			for header := range e.header {
				was := off[subject].header.Get(header)
				if header == trace.HeaderParent || header == "ce-"+trace.HeaderParent {
					if was != "" || !strings.HasSuffix(e.header.Get(header), "-"+name) {
						t.Errorf("%s carries %q with tracing and %q without", subject, e.header.Get(header), was)
					}
				} else if header != "ce-time" && header != "ce-recordedtime" && (!strings.HasPrefix(header, "Nats-") || header == nats.MsgIdHdr) && e.header.Get(header) != was {
					t.Errorf("%s of %s is %q with tracing and %q without", header, subject, e.header.Get(header), was)
				}
			}
			if e.header.Get(trace.HeaderParent) == "" {
				t.Errorf("%s carries no context", subject)
			}
		}
	}
}

// An event that the stream refuses has a span, and the poll that follows a trace of
// its own: the event that it stores carries the context of its own span.
func TestRefusedEventHasASpanOfItsOwn(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	a := newFakeAPI("a")
	a.show("a", at(1, 1))
	o, spans := traced(options())
	r := newRig(t, srv, a, o)
	r.until("the fix", body(`"v":1`))
	// Another process publishes, so the pool's fence is out of date.
	other := srv.Publisher(t, subjects)
	last, err := other.Last(t.Context(), "plaspy.location.a")
	if err != nil {
		t.Fatal(err)
	}
	raw := []byte(at(2, 2))
	e := subjects.LocationEvent(&publisher.Location{DeviceID: "a", Token: "a", Source: "x", FixTime: time.Unix(1, 0), ObservedAt: time.Now().Add(time.Minute), Raw: raw, Hash: 2}, last.Seq)
	done := make(chan error, 1)
	if err := other.Publish(t.Context(), []*publisher.Event{e}, func(err error) { done <- err }); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	a.show("a", at(3, 3))
	list := r.until("the next fix", body(`"v":3`))
	r.stop()
	var refused, stored sdk.ReadOnlySpan
	for _, s := range ofName(spans, "publish plaspy.location.{device}") {
		if said(s, "error.type") == "conflict" {
			refused = s
		}
		stored = s
	}
	if refused == nil || said(stored, "error.type") != "" || refused.SpanContext().TraceID() == stored.SpanContext().TraceID() || refused.SpanContext().SpanID() == stored.SpanContext().SpanID() {
		t.Fatalf("no refused span and a stored one in another trace: %v", spans.Ended())
	}
	if got, want := list[len(list)-1].header.Get(trace.HeaderParent), parentOf(stored.SpanContext()); got != want {
		t.Errorf("the event carries %s, want %s", got, want)
	}
}

// The outage of the broker in the middle makes no second span and no second id.
func TestEventSentAgainKeepsItsContext(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, natstest.Listen)
	a := newFakeAPI("a")
	a.show("a", at(1, 1))
	o, spans := traced(options())
	r := newRig(t, srv, a, o)
	r.until("the fix", body(`"v":1`))
	srv.Kill()
	a.show("a", at(2, 2)) // a poll that has begun still sees it; others wait for NATS
	srv.Restart()
	list := r.until("the next fix", body(`"v":2`))
	r.stop()
	published := map[string]string{}
	for _, s := range ofName(spans, "publish plaspy.location.{device}") {
		if said(s, "error.type") == "" {
			published[said(s, "messaging.message.id")] = parentOf(s.SpanContext())
		}
	}
	got := list[len(list)-1].header
	if want := published[got.Get(nats.MsgIdHdr)]; want == "" || got.Get(trace.HeaderParent) != want {
		t.Errorf("the event carries %s, want %s", got.Get(trace.HeaderParent), want)
	}
}

// bare answers at once with an unchanged fix, and looks at its context.
type bare struct {
	*fakeAPI
	raw []byte
	ctx context.Context
}

// LastLocation answers from memory.
func (b *bare) LastLocation(ctx context.Context, _ string, buf []byte) (plaspy.LastLocation, error) {
	b.ctx = ctx
	buf = append(buf[:0], b.raw...)
	return plaspy.LastLocation{Raw: buf, Buf: buf, At: time.Now()}, nil
}

// TestOffCostsAPollNothing: a poll with tracing off has its caller's context and
// allocates as much as one that has no tracing in it, which is nothing: all
// that it does beside is on the stack.
func TestOffCostsAPollNothing(t *testing.T) {
	for _, tt := range []struct {
		name   string
		tracer *trace.Tracer
		free   bool
	}{
		{"off", nil, true},
		{"on", trace.From(sdk.NewTracerProvider()), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := &bare{fakeAPI: newFakeAPI(), raw: []byte(at(1, 1))}
			o := options()
			o.Trace = tt.tracer
			p := New(o, parts(a, nil, schedule.NewFixed(time.Hour)))
			d := p.fleet.addLocked("a", "a")
			d.track.Known = true
			hash, err := p.parser.Hash(a.raw)
			if err != nil {
				t.Fatal(err)
			}
			d.track.Last.Hash = hash
			buf := make([]byte, 0, initialBuffer)
			poll := func() {
				p.fleet.mu.Lock()
				d.busy = true
				p.fleet.busy.add(1)
				p.fleet.mu.Unlock()
				buf = (&turn{pool: p, job: job{d: d}}).run(t.Context(), buf)
			}
			allocs := math.Inf(1)
			for range 50 { // others allocate meanwhile
				allocs = min(allocs, testing.AllocsPerRun(20, poll))
			}
			if tt.free && a.ctx != t.Context() || !tt.free && a.ctx == t.Context() {
				t.Error("the context differs")
			}
			// The turn is one allocation.
			if (allocs <= 1) != tt.free {
				t.Errorf("%v allocations", allocs)
			}
			if got, _ := d.decisions.Last(); got.Result != decision.Unchanged {
				t.Fatalf("the poll's result is %q", got.Result)
			}
		})
	}
}
