package deadletter

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"plaspy-bridge/bridge/inbound/message"
)

func TestReplay(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.bury(message.Location, "dev=201", 10, "rejected", "Plaspy-Original-Nats-Msg-Id", "mine", "Other", "a", "Other", "b",
		"Plaspy-Original-Nats-Expected-Last-Sequence", "7", "Plaspy-Original-Nats-Foo", "bar")
	r.bury(message.Alert, "dev=201", 11, "rejected")
	r.bury(message.Location, "else", 12, "kept")

	var told []uint64
	each := func(d Done) { told = append(told, d.Letter.Seq) }
	n, err := r.Replay(t.Context(), Job{Filter: Filter{Reason: "rejected"}, DryRun: true, Each: each})
	if err != nil || n != (Count{Done: 2}) || !slices.Equal(told, []uint64{1, 2}) || len(r.returned()) != 0 || len(r.seqs(Filter{})) != 3 {
		t.Fatalf("dry run: %+v %v %v", n, told, err)
	}
	n, err = r.Replay(t.Context(), Job{Filter: Filter{Reason: "rejected"}, Each: each})
	if err != nil || n != (Count{Done: 2}) {
		t.Fatalf("%+v %v", n, err)
	}
	if got := r.seqs(Filter{}); !slices.Equal(got, []uint64{3}) {
		t.Errorf("left: %v", got)
	}
	got := r.returned()
	if len(got) != 2 || got[0].Subject != "plaspy.in.location.dev=201" || string(got[0].Data) != "body 10" || got[1].Subject != "plaspy.in.alert.dev=201" {
		t.Fatalf("returned: %v", got)
	}
	h := got[0].Header
	for name, want := range map[string]string{
		"Other": "a,b", message.HeaderID: "mine", "Nats-Foo": "bar", "Plaspy-Original-Nats-Expected-Last-Sequence": "7",
		"Nats-Expected-Last-Sequence": "", "Plaspy-Original-Nats-Msg-Id": "",
		message.HeaderReason: "", message.HeaderAttempts: "", message.HeaderStatus: "", message.HeaderSubject: "", message.HeaderFirstTry: "",
	} {
		if value := strings.Join(h[name], ","); value != want {
			t.Errorf("%s is %q, want %q", name, value, want)
		}
	}
	if id := h.Get(nats.MsgIdHdr); !strings.HasPrefix(id, "replay:") {
		t.Errorf("id %q", id)
	}
	if id := got[1].Header.Get(message.HeaderID); id != "PLASPY_INBOUND:11" {
		t.Errorf("id of one that had none: %q", id)
	}
	if history := h.Values(message.HeaderHistory); len(history) != 1 || !strings.Contains(history[0], "letter=1 sequence=10 attempts=3 status=404") {
		t.Errorf("history %q", history)
	}
}

// TestReplayAgain: a replay that was cut off after the inbound stream took the
// message is repeated without a second message.
func TestReplayAgain(t *testing.T) {
	r := newRig(t)
	r.bury(message.Location, "d", 10, "rejected")
	st, err := r.stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l, err := r.Letter(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.js.PublishMsg(t.Context(), l.replay(*st.CachedInfo(), subjects.Inbound())); err != nil {
		t.Fatal(err)
	}
	if n, err := r.Replay(t.Context(), Job{Seqs: []uint64{1}}); err != nil || n != (Count{Done: 1}) {
		t.Fatalf("%+v %v", n, err)
	}
	if got := len(r.returned()); got != 1 {
		t.Errorf("%d messages, want 1", got)
	}
	if got := r.seqs(Filter{}); got != nil {
		t.Errorf("left: %v", got)
	}
}

// TestReplayList: letters that are named go back in the order of the stream.
func TestReplayList(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i := range 5 {
		r.bury(message.Location, "d", 10+i, "rejected")
	}
	n, err := r.Replay(t.Context(), Job{Seqs: []uint64{4, 2, 4, 1}})
	if err != nil || n != (Count{Done: 3}) {
		t.Fatalf("%+v %v", n, err)
	}
	var got []string
	for _, m := range r.returned() {
		got = append(got, string(m.Data))
	}
	if want := []string{"body 10", "body 11", "body 13"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	var left error
	n, err = r.Replay(t.Context(), Job{Seqs: []uint64{1, 3}, Each: func(d Done) { left = errors.Join(left, d.Err) }})
	if err != nil || n != (Count{Done: 1, Left: 1}) || !errors.Is(left, ErrNoLetter) {
		t.Errorf("%+v %v, left %v, want one done and one that is no letter", n, err, left)
	}
}

// TestNotBack: a letter that would be lost or spoilt by going back stays, and
// those behind it go back.
func TestNotBack(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.bury(message.Location, "d", 1, "cut", message.HeaderTruncated, "999")
	m := nats.NewMsg(subjects.DeadLetter("location", "d"))
	m.Header.Set(message.HeaderSubject, "plaspy.dlq.location.d") // another stream's
	if _, err := r.js.PublishMsg(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	m.Header.Del(message.HeaderSubject)
	if _, err := r.js.PublishMsg(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	r.bury(message.Location, "d", 4, "elsewhere")
	var left []uint64
	n, err := r.Replay(t.Context(), Job{Each: func(d Done) {
		if d.Err != nil {
			left = append(left, d.Letter.Seq)
			if !errors.Is(d.Err, ErrNotBack) {
				t.Errorf("letter %d was kept: %v, want ErrNotBack", d.Letter.Seq, d.Err)
			}
		}
	}})
	if err != nil || n != (Count{Done: 1, Left: 3}) || !slices.Equal(left, []uint64{1, 2, 3}) {
		t.Errorf("%+v %v, left %v", n, err, left)
	}
	if got := r.seqs(Filter{}); !slices.Equal(got, []uint64{1, 2, 3}) {
		t.Errorf("left: %v", got)
	}
}

// TestReplayTooLarge: a message that the stream accepted once goes back although
// the headers of a replay make it too large.
func TestReplayTooLarge(t *testing.T) {
	t.Parallel()
	const limit = 128 << 10
	for _, tt := range []struct {
		name        string
		body, extra int
		want        map[string]bool // headers
	}{
		{"fits", 100, 0, map[string]bool{message.HeaderHistory: true, message.HeaderID: true, nats.MsgIdHdr: true, "Other": true}},
		{"without its history", limit - 400, 0, map[string]bool{message.HeaderID: true, nats.MsgIdHdr: true, "Other": true}},
		{"with its ids", limit - 400, 350, map[string]bool{message.HeaderID: true, nats.MsgIdHdr: true}},
		{"alone", limit, 0, map[string]bool{}},
		{"large headers", 100, 65440, map[string]bool{message.HeaderID: true, nats.MsgIdHdr: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			l := nats.NewMsg(subjects.DeadLetter("location", "d"))
			r.limitMessages(limit)
			l.Data = make([]byte, tt.body)
			l.Header.Set(message.HeaderReason, "rejected")
			l.Header.Set(message.HeaderSubject, "plaspy.in.location.d")
			l.Header.Set("Other", strings.Repeat("x", tt.extra))
			for range maxHistory {
				if tt.extra > 60000 {
					break
				}
				l.Header.Add(message.HeaderHistory, strings.Repeat("h", 30))
			}
			if _, err := r.js.PublishMsg(t.Context(), l); err != nil {
				t.Fatal(err)
			}
			if n, err := r.Replay(t.Context(), Job{}); err != nil || n != (Count{Done: 1}) {
				t.Fatalf("%+v %v", n, err)
			}
			m := r.returned()[0]
			for _, name := range []string{message.HeaderHistory, message.HeaderID, nats.MsgIdHdr, "Other"} {
				if _, got := m.Header[name]; got != tt.want[name] {
					t.Errorf("header %s: %t, want %t", name, got, tt.want[name])
				}
			}
			if len(m.Data) != tt.body {
				t.Errorf("%d bytes", len(m.Data))
			}
		})
	}
}

// TestReplayWithoutMQTT: a header of the server's MQTT side does not go back.
func TestReplayWithoutMQTT(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.bury(message.Location, "d", 1, "rejected", "Nmqtt-Pub", "1")
	if n, err := r.Replay(t.Context(), Job{}); err != nil || n != (Count{Done: 1}) {
		t.Fatalf("%+v %v", n, err)
	}
	if h := r.returned()[0].Header; h["Nmqtt-Pub"] != nil {
		t.Errorf("headers %v", h)
	}
}
