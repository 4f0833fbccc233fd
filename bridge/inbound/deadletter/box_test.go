package deadletter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/inbound/message"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

func TestMain(m *testing.M) { natstest.Main(m) }

const subjects publisher.Subjects = "plaspy"

type rig struct {
	*Box
	t *testing.T
}

func newRig(t *testing.T) *rig {
	t.Helper()
	js := natstest.JetStream(t, natstest.Start(t).Client(t))
	if _, err := publisher.EnsureStreams(t.Context(), js, subjects.Streams(publisher.StreamOptions{Inbound: true})); err != nil {
		t.Fatal(err)
	}
	return &rig{Open(js, subjects), t}
}

// limitMessages has the inbound stream refuse messages above a size in bytes.
func (r *rig) limitMessages(size int32) {
	r.t.Helper()
	st, err := r.js.Stream(r.t.Context(), subjects.Inbound())
	if err != nil {
		r.t.Fatal(err)
	}
	cfg := st.CachedInfo().Config
	cfg.MaxMsgSize = size
	if _, err := r.js.UpdateStream(r.t.Context(), cfg); err != nil {
		r.t.Fatal(err)
	}
}

// bury stores a dead letter as the consumer would.
func (r *rig) bury(kind message.Kind, token string, seq int, reason string, header ...string) {
	r.t.Helper()
	m := nats.NewMsg(subjects.DeadLetter(string(kind), token))
	if kind == message.Unknown {
		m.Subject = subjects.DeadLetterUnknown()
	}
	m.Data = fmt.Appendf(nil, "body %d", seq)
	m.Header.Set(message.HeaderReason, reason)
	m.Header.Set(message.HeaderError, "detail")
	m.Header.Set(message.HeaderAttempts, "3")
	m.Header.Set(message.HeaderStatus, "404")
	m.Header.Set(message.HeaderSubject, fmt.Sprintf("plaspy.in.%s.%s", kind, token))
	m.Header.Set(message.HeaderSequence, strconv.Itoa(seq))
	m.Header.Set(message.HeaderFirstTry, "2026-01-02T03:04:05.678Z")
	m.Header.Set(message.HeaderLastTry, "2026-01-02T03:04:06.678Z")
	for i := 0; i < len(header); i += 2 {
		m.Header.Add(header[i], header[i+1])
	}
	if _, err := r.js.PublishMsg(r.t.Context(), m, jetstream.WithMsgID(fmt.Sprintf("dead:%d", seq))); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) seqs(f Filter) []uint64 {
	r.t.Helper()
	var got []uint64
	if err := r.Each(r.t.Context(), f, func(l Letter) error { got = append(got, l.Seq); return nil }); err != nil {
		r.t.Fatal(err)
	}
	return got
}

func (r *rig) returned() []*jetstream.RawStreamMsg {
	r.t.Helper()
	st, err := r.js.Stream(r.t.Context(), subjects.Inbound())
	if err != nil {
		r.t.Fatal(err)
	}
	var list []*jetstream.RawStreamMsg
	for seq := uint64(1); seq <= st.CachedInfo().State.LastSeq; seq++ {
		m, err := st.GetMsg(r.t.Context(), seq)
		if err != nil {
			r.t.Fatal(err)
		}
		list = append(list, m)
	}
	return list
}

func TestFilter(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if got := r.seqs(Filter{}); got != nil {
		t.Errorf("empty box: %v", got)
	}
	r.bury(message.Location, "dev=201", 10, "Rejected with status 404")
	r.bury(message.Alert, "dev=201", 11, "too old")
	r.bury(message.Location, "other", 12, "rejected with status 400")
	r.bury(message.Unknown, "x", 13, "unknown subject")
	for _, tt := range []struct {
		name string
		f    Filter
		want []uint64
	}{
		{"all", Filter{}, []uint64{1, 2, 3, 4}},
		{"device", Filter{Device: "dev 1"}, []uint64{1, 2}},
		{"kind", Filter{Kind: message.Location}, []uint64{1, 3}},
		{"unknown", Filter{Kind: message.Unknown}, []uint64{4}},
		{"device and kind", Filter{Device: "dev 1", Kind: message.Alert}, []uint64{2}},
		{"reason in any case", Filter{Reason: "REJECTED"}, []uint64{1, 3}},
		{"no such device", Filter{Device: "nobody"}, nil},
		{"no wildcard", Filter{Device: "*"}, nil},
		{"older than an hour", Filter{OlderThan: time.Hour}, nil},
		{"older than an instant", Filter{OlderThan: time.Nanosecond}, []uint64{1, 2, 3, 4}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := (&rig{r.Box, t}).seqs(tt.f); !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
	for _, f := range []Filter{{Kind: "picture"}, {OlderThan: -1}} {
		if err := r.Each(t.Context(), f, func(Letter) error { return nil }); err == nil {
			t.Errorf("%+v accepted", f)
		}
	}
}

// TestNewest checks that the newest dead letters come first, also if the stream has gaps.
func TestNewest(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	newest := func(limit int, want ...uint64) {
		t.Helper()
		list, err := r.Newest(t.Context(), limit)
		var got []uint64
		for _, l := range list {
			got = append(got, l.Seq)
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("the newest %d are %v, %v, want %v", limit, got, err, want)
		}
	}
	newest(3)
	for seq := range 6 {
		r.bury(message.Location, "d", seq+1, "rejected")
	}
	newest(3, 6, 5, 4)
	if _, err := r.Purge(t.Context(), Job{Seqs: []uint64{5, 6}}); err != nil {
		t.Fatal(err)
	}
	newest(3, 4, 3, 2)
	newest(10, 4, 3, 2, 1)
	if err := r.js.DeleteStream(t.Context(), subjects.DeadLetters()); err != nil {
		t.Fatal(err)
	}
	newest(3)
}

func TestLetter(t *testing.T) {
	r := newRig(t)
	r.bury(message.Location, "dev=201", 10, "rejected", "Other", "x")
	l, err := r.Letter(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if l.Seq != 1 || l.Kind != message.Location || l.Device != "dev 1" || l.Reason != "rejected" || l.Error != "detail" || l.Attempts != 3 || l.Status != "404" ||
		l.Original != "plaspy.in.location.dev=201" || l.Sequence != 10 || string(l.Body) != "body 10" || l.FirstTry == "" || l.LastTry == "" || l.At.IsZero() {
		t.Errorf("got %+v", l)
	}
	for name := range l.Header {
		if strings.HasPrefix(name, "Nats-") && name != nats.MsgIdHdr {
			t.Errorf("header %s is not stored with the letter", name)
		}
	}
	if _, err := r.Letter(t.Context(), 2); !errors.Is(err, ErrNoLetter) {
		t.Errorf("got %v, want ErrNoLetter", err)
	}
}

// delayed is a server that holds its answers back from a client's request for messages until its
// next request for the state of a consumer.
type delayed struct{ *natstest.Server }

// InProcessConn implements [nats.InProcessConnProvider].
func (d delayed) InProcessConn() (net.Conn, error) {
	conn, err := d.Server.InProcessConn()
	open := make(chan struct{})
	close(open)
	c := &delayedConn{Conn: conn}
	c.gate.Store(&open)
	return c, err
}

type delayedConn struct {
	net.Conn

	gate atomic.Pointer[chan struct{}]
	once sync.Once
	end  func()
}

// Write looks at the requests.
func (c *delayedConn) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("CONSUMER.MSG.NEXT.")) {
		c.once.Do(func() {
			gate := make(chan struct{})
			c.end = sync.OnceFunc(func() { close(gate) })
			c.gate.Store(&gate)
		})
	}
	if c.end != nil && bytes.Contains(p, []byte("CONSUMER.INFO.")) {
		c.end()
	}
	return c.Conn.Write(p)
}

// Read waits at the gate.
func (c *delayedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	<-*c.gate.Load()
	return n, err
}

// Close opens the gate.
func (c *delayedConn) Close() error {
	if c.end != nil {
		c.end()
	}
	return c.Conn.Close()
}

// TestLettersOnTheirWay: letters that the server has sent, and that have not arrived yet,
// are not left out.
func TestLettersOnTheirWay(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	js := natstest.JetStream(t, srv.Client(t))
	if _, err := publisher.EnsureStreams(t.Context(), js, subjects.Streams(publisher.StreamOptions{Inbound: true})); err != nil {
		t.Fatal(err)
	}
	(&rig{Open(js, subjects), t}).bury(message.Location, "d", 1, "r")
	slow, err := nats.Connect("", nats.InProcessServer(delayed{srv}), nats.Timeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	r := &rig{Open(natstest.JetStream(t, slow), subjects), t}
	if got := r.seqs(Filter{}); !slices.Equal(got, []uint64{1}) {
		t.Errorf("got %v, want the letter", got)
	}
}

// TestPurgedMeanwhile: a look at the letters ends if the last ones are removed
// while it is under way.
func TestPurgedMeanwhile(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i := range 300 { // more than one pull
		r.bury(message.Location, "d", i, "r")
	}
	seen := 0
	err := r.Each(t.Context(), Filter{}, func(Letter) error {
		if seen++; seen == 1 {
			st, err := r.stream(t.Context())
			if err != nil {
				return err
			}
			return st.Purge(t.Context())
		}
		return nil
	})
	if err != nil {
		t.Errorf("after %d letters: %v", seen, err)
	}
}

func TestPurge(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i := range 4 {
		r.bury(message.Location, "d", 10+i, "r"+strconv.Itoa(i))
	}
	if n, err := r.Purge(t.Context(), Job{Filter: Filter{Reason: "r"}, DryRun: true}); err != nil || n != (Count{Done: 4}) {
		t.Fatalf("%+v %v", n, err)
	}
	if n, err := r.Purge(t.Context(), Job{Seqs: []uint64{2}}); err != nil || n != (Count{Done: 1}) {
		t.Fatalf("%+v %v", n, err)
	}
	if got := r.seqs(Filter{}); !slices.Equal(got, []uint64{1, 3, 4}) {
		t.Errorf("left: %v", got)
	}
	if n, err := r.Purge(t.Context(), Job{}); err != nil || n != (Count{Done: 3}) {
		t.Fatalf("%+v %v", n, err)
	}
	if got := r.returned(); len(got) != 0 {
		t.Errorf("%d messages went back", len(got))
	}
}

func TestRate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i := range 5 {
		r.bury(message.Location, "d", i, "r")
	}
	began := time.Now()
	if n, err := r.Purge(t.Context(), Job{Rate: 20}); err != nil || n != (Count{Done: 5}) {
		t.Fatalf("%+v %v", n, err)
	}
	if got := time.Since(began); got < 200*time.Millisecond {
		t.Errorf("5 letters at 20 a second took %v", got)
	}
	r.bury(message.Location, "d", 9, "r")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if n, err := r.Purge(ctx, Job{Rate: 1}); !errors.Is(err, context.Canceled) || n != (Count{Done: 0}) {
		t.Errorf("cancelled: %+v %v", n, err)
	}
}

// TestHistory: a message that dies again and again keeps the last times.
func TestHistory(t *testing.T) {
	r := newRig(t)
	r.bury(message.Location, "d", 1, "rejected")
	l, err := r.Letter(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	for life := range 3 * maxHistory {
		m := l.replay(jetstream.StreamInfo{}, subjects.Inbound())
		again := read(subjects, uint64(life+2), time.Now(), l.Subject, m.Header, m.Data)
		again.Original, again.Reason = l.Original, "again"
		l = again
	}
	if len(l.History) != maxHistory || l.Header.Get(message.HeaderID) != "PLASPY_INBOUND:1" {
		t.Errorf("history %q, id %q", l.History, l.Header.Get(message.HeaderID))
	}
}
