package deadletter

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/inbound"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/publisher/natstest"
)

// refusing answers 404 while refuse is set.
type refusing struct{ refuse atomic.Bool }

func (a *refusing) Locations(context.Context, string, []byte, plaspy.PostOptions) (plaspy.Answer, error) {
	if a.refuse.Load() {
		return plaspy.Answer{}, &plaspy.Error{Endpoint: "locations", Status: 404, Message: "no such device"}
	}
	return plaspy.Answer{Status: 200, Body: []byte(`{"success":true}`)}, nil
}

func (a *refusing) Alerts(ctx context.Context, id string, body []byte, o plaspy.PostOptions) (plaspy.Answer, error) {
	return a.Locations(ctx, id, body, o)
}

// TestCycle: a message that is given up, put back, given up again and put back
// once more is posted under its first name, and its letters have its history.
func TestCycle(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	api := &refusing{}
	api.refuse.Store(true)
	log := slog.New(slog.DiscardHandler)
	c, err := inbound.New(inbound.Options{
		JetStream: r.js, Subjects: subjects, API: api, Log: log,
		Circuit: plaspy.NewCircuit(plaspy.CircuitOptions{Name: "posts", Log: log}),
	})
	if err != nil {
		t.Fatal(err)
	}
	natstest.Run(t, c.Run)
	body := `{"dateTime":"2026-01-02T03:04:01Z","latitude":4.7,"longitude":-74.1}`
	if _, err := r.js.Publish(t.Context(), "plaspy.in.location.d", []byte(body), jetstream.WithMsgID("mine")); err != nil {
		t.Fatal(err)
	}
	first := r.awaitLetter(1)
	results, err := r.Results(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer results.Close()
	var back uint64
	if _, err := r.Replay(t.Context(), Job{Seqs: []uint64{1}, Each: func(d Done) { back = d.Sequence }}); err != nil {
		t.Fatal(err)
	}
	if fate, ok, err := results.Await(t.Context(), back); err != nil || !ok || fate.Posted || fate.Status != 404 || fate.DeadLetter != 2 {
		t.Errorf("the replay's result: %+v %t %v", fate, ok, err)
	}
	second := r.awaitLetter(2)
	if string(second.Body) != body || second.Original != "plaspy.in.location.d" || second.Sequence != first.Sequence+1 || second.Reason != first.Reason {
		t.Errorf("second letter %+v", second)
	}
	if len(first.History) != 0 || len(second.History) != 1 || !strings.Contains(second.History[0], "letter=1 sequence=1 attempts=1 status=404") {
		t.Errorf("history %q, then %q", first.History, second.History)
	}
	api.refuse.Store(false)
	if _, err := r.Replay(t.Context(), Job{Each: func(d Done) { back = d.Sequence }}); err != nil {
		t.Fatal(err)
	}
	if fate, ok, err := results.Await(t.Context(), back); err != nil || !ok || !fate.Posted || fate.Status != 200 {
		t.Errorf("the second replay's result: %+v %t %v", fate, ok, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, ok, err := results.Await(ended, back+1); ok || err != nil {
		t.Errorf("a message that is not there: %t %v", ok, err)
	}
	result := r.awaitLast(subjects.Results(), 3)
	var got struct{ ID string }
	if err := json.Unmarshal(result.Data, &got); err != nil || got.ID != "mine" {
		t.Errorf("result %s, %v", result.Data, err)
	}
}

func (r *rig) awaitLetter(seq uint64) Letter {
	r.t.Helper()
	r.awaitLast(subjects.DeadLetters(), seq)
	l, err := r.Letter(r.t.Context(), seq)
	if err != nil {
		r.t.Fatal(err)
	}
	return l
}

// awaitLast waits until a stream's last message has a sequence.
func (r *rig) awaitLast(stream string, seq uint64) *jetstream.RawStreamMsg {
	r.t.Helper()
	st, err := r.js.Stream(r.t.Context(), stream)
	if err != nil {
		r.t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; {
		if m, err := st.GetMsg(r.t.Context(), seq); err == nil {
			return m
		}
		if time.Now().After(end) {
			r.t.Fatalf("%s does not reach %d", stream, seq)
		}
		<-time.After(5 * time.Millisecond)
	}
}
