package publisher_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

const subjects = publisher.Subjects("plaspy")

func TestMain(m *testing.M) { natstest.Main(m) }

func location(device, raw string, hash uint64) *publisher.Location {
	return &publisher.Location{
		DeviceID: device, Token: publisher.Encode(device), Name: "Truck 7", Source: "https://api.plaspy.com/api/devices/" + device,
		FixTime: time.Date(2026, 1, 2, 3, 4, 1, 0, time.UTC), ObservedAt: time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC),
		Raw: json.RawMessage(raw), Hash: hash,
	}
}

// publish stores a chain and waits for its end.
func publish(t testing.TB, p *publisher.Publisher, events ...*publisher.Event) error {
	t.Helper()
	done := make(chan error, 1)
	if err := p.Publish(t.Context(), events, func(err error) { done <- err }); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		return err
	case <-time.After(time.Minute):
		t.Fatal("no end of the chain in 20 s")
		return nil
	}
}

// messages returns the messages of the events stream.
func messages(t testing.TB, js jetstream.JetStream) []*jetstream.RawStreamMsg {
	t.Helper()
	st, err := js.Stream(t.Context(), subjects.Events())
	if err != nil {
		t.Fatal(err)
	}
	info, err := st.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var list []*jetstream.RawStreamMsg
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq && seq > 0; seq++ {
		m, err := st.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, m)
	}
	return list
}

func TestPublishedMessage(t *testing.T) {
	p := natstest.Start(t).Publisher(t, subjects)
	raw := `{"dateTime":"2026-01-02T03:04:01Z", "latitude":4.70e0,"longitude":-74.1,"x":"<\u00e9>"}`
	l := location("dev 1", raw, 7)
	l.Edges = "+SOS"
	if err := publish(t, p, subjects.LocationEvent(l, 0)); err != nil {
		t.Fatal(err)
	}
	m := messages(t, natstest.Own(t, p))[0]
	if got, want := m.Subject, "plaspy.location.dev=201"; got != want {
		t.Errorf("subject %q, want %q", got, want)
	}
	want := `{"deviceId":"dev 1","name":"Truck 7","observedAt":"2026-01-02T03:04:05.678Z","location":` + raw + `}`
	if got := string(m.Data); got != want {
		t.Errorf("body\n%s, want\n%s", got, want)
	}
	for k, want := range map[string]string{
		"ce-specversion": "1.0", "ce-type": "com.plaspy.location", "ce-subject": "dev=201", "ce-time": "2026-01-02T03:04:01Z",
		"ce-source": "https://api.plaspy.com/api/devices/dev=201", "ce-partitionkey": "dev=201", "content-type": "application/json", "ce-datacontenttype": "application/json",
		"plaspy-edges": "+SOS", "Nats-Msg-Id": m.Header.Get("ce-id"),
	} {
		if got := m.Header[k]; len(got) != 1 || got[0] != want {
			t.Errorf("header %s = %q, want %q", k, got, want)
		}
	}
	if len(m.Header.Get("ce-id")) != 32 {
		t.Errorf("ce-id %q", m.Header.Get("ce-id"))
	}
}

func TestChainsKeepOrderAndIDsDifferForABA(t *testing.T) {
	p := natstest.Start(t).Publisher(t, subjects)
	a, b := location("d", `{"v":"a"}`, 1), location("d", `{"v":"b"}`, 2)
	if err := publish(t, p, subjects.LocationEvent(a, 0), subjects.LocationEvent(b, 0), subjects.LocationEvent(a, 0)); err != nil {
		t.Fatal(err)
	}
	ms := messages(t, natstest.Own(t, p))
	if len(ms) != 3 {
		t.Fatalf("%d messages, want 3", len(ms))
	}
	ids := map[string]bool{}
	for _, m := range ms {
		ids[m.Header.Get("ce-id")] = true
	}
	if len(ids) != 3 {
		t.Errorf("ids %v, want three different ones", ids)
	}
}

func TestSamePublicationByAnotherProcessIsStoredOnce(t *testing.T) {
	s := natstest.Start(t)
	one, two := s.Publisher(t, subjects), s.Publisher(t, subjects)
	first, second := subjects.LocationEvent(location("d", `{"v":1}`, 1), 0), subjects.LocationEvent(location("d", `{"v":1}`, 1), 0)
	if err := publish(t, one, first); err != nil {
		t.Fatal(err)
	}
	if err := publish(t, two, second); err != nil {
		t.Fatalf("the same fact again: %v, want it found stored", err)
	}
	if first.ID != second.ID || first.Seq != second.Seq {
		t.Errorf("ids %s and %s, sequences %d and %d, want the same", first.ID, second.ID, first.Seq, second.Seq)
	}
	if n := len(messages(t, one.JetStream())); n != 1 {
		t.Errorf("%d messages, want 1", n)
	}
}

// TestSameLocationWithAnotherState: the state that is read from the stream is that of the
// stored event, so another replica's event with other headers is not the same.
func TestSameLocationWithAnotherState(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	one, two := s.Publisher(t, subjects), s.Publisher(t, subjects)
	if err := publish(t, one, subjects.LocationEvent(location("d", `{"v":1}`, 1), 0)); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(l *publisher.Location){
		"edges":  func(l *publisher.Location) { l.Edges = "+SOS" },
		"since":  func(l *publisher.Location) { l.Since = l.FixTime },
		"newest": func(l *publisher.Location) { l.Newest = "- - -" },
	} {
		l := location("d", `{"v":1}`, 1)
		change(l)
		err := publish(t, two, subjects.LocationEvent(l, 0))
		if _, ok := errors.AsType[*publisher.Conflict](err); !ok {
			t.Errorf("%s: got %v, want a conflict", name, err)
		}
	}
}

func TestFenceRefusesWhoIsBehind(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	one, two := s.Publisher(t, subjects), s.Publisher(t, subjects)
	newer := subjects.LocationEvent(location("d", `{"v":2}`, 2), 0)
	if err := publish(t, one, newer); err != nil {
		t.Fatal(err)
	}
	err := publish(t, two, subjects.LocationEvent(location("d", `{"v":1}`, 1), 0))
	c, ok := errors.AsType[*publisher.Conflict](err)
	if !ok {
		t.Fatalf("got %v, want a conflict", err)
	}
	if c.Last == nil || c.Last.Seq != newer.Seq || c.Last.ID != newer.ID {
		t.Errorf("conflict shows %+v, want sequence %d", c.Last, newer.Seq)
	}
	if n := len(messages(t, one.JetStream())); n != 1 {
		t.Errorf("%d messages, want 1", n)
	}
}

func TestTooLargeIsFinal(t *testing.T) {
	p := natstest.Start(t, func(o *server.Options) { o.MaxPayload = 4096 }).Publisher(t, subjects)
	err := publish(t, p, subjects.LocationEvent(location("d", `{"v":"`+strings.Repeat("x", 5000)+`"}`, 1), 0))
	if !errors.Is(err, publisher.ErrUnstorable) {
		t.Errorf("got %v, want %v", err, publisher.ErrUnstorable)
	}
}

func TestDeletedStreamDelaysAndLosesNothing(t *testing.T) {
	t.Parallel()
	p := natstest.Start(t).Publisher(t, subjects)
	if err := natstest.Own(t, p).DeleteStream(t.Context(), "PLASPY_EVENTS"); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	if err := p.Publish(t.Context(), []*publisher.Event{subjects.LocationEvent(location("d", `{"v":1}`, 1), 0)}, func(err error) { done <- err }); err != nil {
		t.Fatal(err)
	}
	for p.Trouble() == "" {
		select {
		case err := <-done:
			t.Fatalf("the chain ended with %v while there was no stream", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
	if got := p.Trouble(); !strings.Contains(got, "no stream takes the events") {
		t.Errorf("trouble %q", got)
	}
	if _, err := publisher.EnsureStreams(t.Context(), natstest.Own(t, p), subjects.Streams(publisher.StreamOptions{})); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := p.Trouble(); got != "" {
		t.Errorf("trouble %q after the stream is back", got)
	}
}

// TestNoAnswer: a broker that takes an event and does not answer is soon out of
// reach, and in trouble after a while.
func TestNoAnswer(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	p := srv.Publisher(t, subjects)
	if err := natstest.Own(t, p).DeleteStream(t.Context(), "PLASPY_EVENTS"); err != nil {
		t.Fatal(err)
	}
	silent := srv.Client(t)
	if _, err := silent.SubscribeSync(subjects.Location("*")); err != nil {
		t.Fatal(err)
	}
	if err := silent.Flush(); err != nil {
		t.Fatal(err)
	}
	if !p.Connected() || p.Trouble() != "" {
		t.Fatalf("before anything was sent: connected %v, trouble %q", p.Connected(), p.Trouble())
	}
	if err := p.Publish(t.Context(), []*publisher.Event{subjects.LocationEvent(location("d", `{"v":1}`, 1), 0)}, func(error) {}); err != nil {
		t.Fatal(err)
	}
	natstest.Eventually(t, "the connection is gone", func() bool { return !p.Connected() })
	natstest.Eventually(t, "trouble", func() bool { return p.Trouble() != "" })
}

func TestBrokerKilledInTheMiddle(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, natstest.Listen)
	p := s.Publisher(t, subjects)
	const devices, rounds = 50, 40
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	ends, stored := make(chan error, devices), make(chan struct{}, devices*rounds)
	for d := range devices {
		go func() { ends <- chainOfRounds(ctx, p, fmt.Sprintf("d%d", d), rounds, stored) }()
	}
	for range 3 {
		for range 100 {
			<-stored
		}
		s.Kill()
		s.Restart()
	}
	for range devices {
		if err := <-ends; err != nil {
			t.Fatal(err)
		}
	}
	next := map[string]int{}
	for _, m := range messages(t, natstest.Own(t, p)) {
		var body struct{ Location struct{ V int } }
		if err := json.Unmarshal(m.Data, &body); err != nil {
			t.Fatal(err)
		}
		if body.Location.V != next[m.Subject] {
			t.Fatalf("%s: got %d, want %d: lost, doubled or out of order", m.Subject, body.Location.V, next[m.Subject])
		}
		next[m.Subject]++
	}
	for subject, n := range next {
		if n != rounds {
			t.Errorf("%s: %d stored, want %d", subject, n, rounds)
		}
	}
	if len(next) != devices {
		t.Errorf("%d devices stored, want %d", len(next), devices)
	}
}

// chainOfRounds publishes one fix after another, each when the one before is
// stored, as the poll pool does.
func chainOfRounds(ctx context.Context, p *publisher.Publisher, device string, rounds int, stored chan<- struct{}) error {
	var seq uint64
	for i := range rounds {
		e := subjects.LocationEvent(location(device, fmt.Sprintf(`{"v":%d}`, i), uint64(i)), seq)
		done := make(chan error, 1)
		if err := p.Publish(ctx, []*publisher.Event{e}, func(err error) { done <- err }); err != nil {
			return err
		}
		if err := <-done; err != nil {
			return fmt.Errorf("%s round %d: %w", device, i, err)
		}
		seq = e.Seq
		stored <- struct{}{}
	}
	return nil
}

func TestStopGivesBackWhatIsOut(t *testing.T) {
	s := natstest.Start(t)
	p, err := publisher.New(s.Conn(t), subjects, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan struct{})
	go func() { defer close(ran); p.Run(ctx) }()
	done := make(chan error, 10)
	for d := range 10 { // no stream: they stay out
		e := subjects.LocationEvent(location(fmt.Sprint("d", d), `{}`, 1), 0)
		if err := p.Publish(t.Context(), []*publisher.Event{e}, func(err error) { done <- err }); err != nil {
			t.Fatal(err)
		}
	}
	short, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if err := p.Drain(short); err == nil {
		t.Error("drained although nothing can be stored")
	}
	cancel()
	<-ran
	for range 10 {
		if err := <-done; !errors.Is(err, publisher.ErrStopped) {
			t.Errorf("got %v, want %v", err, publisher.ErrStopped)
		}
	}
	if err := p.Publish(t.Context(), []*publisher.Event{subjects.LocationEvent(location("d", `{}`, 1), 0)}, func(error) {}); !errors.Is(err, publisher.ErrStopped) {
		t.Errorf("publish after the end: %v, want %v", err, publisher.ErrStopped)
	}
}

func TestPurgedStreamTakesTheSameFactAgain(t *testing.T) {
	p := natstest.Start(t).Publisher(t, subjects)
	if err := publish(t, p, subjects.LocationEvent(location("d", `{"v":1}`, 1), 0)); err != nil {
		t.Fatal(err)
	}
	st, err := natstest.Own(t, p).Stream(t.Context(), "PLASPY_EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	again := subjects.LocationEvent(location("d", `{"v":1}`, 1), 0)
	if err := publish(t, p, again); err != nil {
		t.Fatal(err)
	}
	if ms := messages(t, natstest.Own(t, p)); len(ms) != 1 || ms[0].Sequence != again.Seq {
		t.Errorf("%d messages after the purge, want the one with sequence %d", len(ms), again.Seq)
	}
}

func TestStreamsAreRespected(t *testing.T) {
	t.Parallel()
	p := natstest.Start(t)
	js := natstest.JetStream(t, p.Client(t))
	want := subjects.Streams(publisher.StreamOptions{Retention: time.Hour, Inbound: true})
	other := want[0]
	other.MaxAge = 24 * time.Hour
	if _, err := js.CreateStream(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	reports, err := publisher.EnsureStreams(t.Context(), js, want)
	if err != nil {
		t.Fatal(err)
	}
	if len(reports) != 6 {
		t.Fatalf("%d reports, want 6", len(reports))
	}
	if r := reports[0]; r.Created || !slices.Equal(r.Differs, []string{"max_age is 24h0m0s, the bridge would set 1h0m0s"}) {
		t.Errorf("report of the stream that existed: %+v", r)
	}
	for _, r := range reports[1:] {
		if !r.Created || len(r.Differs) > 0 {
			t.Errorf("report %+v, want created", r)
		}
	}
	reports, err = publisher.EnsureStreams(t.Context(), js, want)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range reports[1:] {
		if r.Created || len(r.Differs) > 0 {
			t.Errorf("second time: %+v, want found and the same", r)
		}
	}
}

// A consumer on the work queue removes messages that were not posted.
func TestForeignConsumerOfQueue(t *testing.T) {
	p := natstest.Start(t)
	js := natstest.JetStream(t, p.Client(t))
	want := subjects.Streams(publisher.StreamOptions{Inbound: true})
	if _, err := publisher.EnsureStreams(t.Context(), js, want); err != nil {
		t.Fatal(err)
	}
	for _, stream := range []string{subjects.Inbound(), subjects.Events()} {
		if _, err := js.CreateConsumer(t.Context(), stream, jetstream.ConsumerConfig{Durable: "reader", AckPolicy: jetstream.AckExplicitPolicy}); err != nil {
			t.Fatal(err)
		}
	}
	reports, err := publisher.EnsureStreams(t.Context(), js, want)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range reports {
		var differs []string
		if r.Stream == subjects.Inbound() {
			differs = []string{"consumers is 1, the bridge needs none: a message that a consumer acknowledges is removed without being posted"}
		}
		if !slices.Equal(r.Differs, differs) {
			t.Errorf("%s differs: %q, want %q", r.Stream, r.Differs, differs)
		}
	}
}
