package inbound

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/inbound/message"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

// TestResult checks the result of a message that was posted.
func TestResult(t *testing.T) {
	r := newRig(t)
	failed := false
	api := newFakeAPI(nil)
	api.answer = func(string, int, []byte) error {
		if !failed {
			failed = true
			return status(500)
		}
		return nil
	}
	inbox, err := r.nc.SubscribeSync("elsewhere.results")
	if err != nil {
		t.Fatal(err)
	}
	r.put("plaspy.in.location.dev=201", location(1), nats.MsgIdHdr, "first", message.HeaderReplyTo, "elsewhere.results")
	seq := r.put("plaspy.in.alert.dev=201", []byte(`{"alertName":"SOS","dateTime":"2026-01-02T03:04:01Z"}`), message.HeaderReplyTo, "$JS.API.STREAM.DELETE.PLASPY_INBOUND")
	run(t, r.consumer(api))
	r.waitCount(subjects.Inbound(), 0)
	got := r.messages(subjects.Results(), 2)
	for i, want := range []struct {
		subject, id, kind string
		attempts          int
	}{
		{"plaspy.result.location.dev=201", "first", "location", 2},
		{"plaspy.result.alert.dev=201", "PLASPY_INBOUND:2", "alert", 1},
	} {
		m := got[i]
		var body struct {
			DeviceID, Kind, ID, PostedAt string
			Status, Attempts             int
			Response                     json.RawMessage
		}
		if err := json.Unmarshal(m.Data, &body); err != nil {
			t.Fatal(err)
		}
		if m.Subject != want.subject || body.ID != want.id || body.Kind != want.kind || body.Attempts != want.attempts ||
			body.DeviceID != "dev 1" || body.Status != 200 || string(body.Response) != `{"success":true}` {
			t.Errorf("result %d: %s %s", i, m.Subject, m.Data)
		}
		if _, err := time.Parse(publisher.TimeFormat, body.PostedAt); err != nil {
			t.Error(err)
		}
		h := m.Header
		if id := h.Get(publisher.HeaderID); id == "" || h.Get(nats.MsgIdHdr) != id || h.Get(publisher.HeaderType) != "com.plaspy.result" ||
			h.Get(publisher.HeaderSource) != "https://api.example/api/devices/dev=201" || h.Get(publisher.HeaderSubject) != "dev=201" || h.Get(publisher.HeaderTime) == "" {
			t.Errorf("result %d: headers %v", i, h)
		}
	}
	if id0, id1 := got[0].Header.Get(publisher.HeaderID), got[1].Header.Get(publisher.HeaderID); id0 == id1 {
		t.Errorf("both results are %s", id0)
	}
	elsewhere, err := inbox.NextMsg(time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(elsewhere.Data, got[0].Data) {
		t.Errorf("Reply-To got %s", elsewhere.Data)
	}
	took := api.accepted()
	if seq != 2 || took[0].key != "first" || took[1].key != "PLASPY_INBOUND:2" || took[0].device != "dev 1" {
		t.Errorf("posts: %+v", took)
	}
}

// TestFinal: every status that is final, and every one that is not.
func TestFinal(t *testing.T) {
	t.Parallel()
	final := map[int]bool{}
	for _, s := range []int{400, 402, 404, 405, 406, 409, 410, 411, 412, 413, 415, 417, 422, 451} {
		final[s] = true
	}
	r := newRig(t)
	for _, s := range []int{400, 402, 404, 405, 406, 409, 410, 411, 412, 413, 415, 417, 422, 451, 401, 408, 425, 429, 500, 502, 503, 504, 599} {
		t.Run(http.StatusText(s), func(t *testing.T) {
			letters := r.count(subjects.DeadLetters())
			var tries atomic.Int64
			api := newFakeAPI(func(string, int, []byte) error {
				if tries.Add(1) <= 2 {
					return status(s)
				}
				return nil
			})
			body := location(1)
			id := "mine" + jsonNumber(s)
			seq := r.put("plaspy.in.location.d", body, nats.MsgIdHdr, id, "Nats-Foo", "x", "Other", "a", "Other", "b")
			run(t, r.consumer(api))
			r.waitCount(subjects.Inbound(), 0)
			if !final[s] {
				if got := len(api.accepted()); got != 1 || tries.Load() != 3 {
					t.Errorf("%d posts after %d tries, want 1 after 3", got, tries.Load())
				}
				return
			}
			m := r.messages(subjects.DeadLetters(), letters+1)[letters]
			if tries.Load() != 1 {
				t.Errorf("%d tries, want 1", tries.Load())
			}
			if m.Subject != "plaspy.dlq.location.d" || !bytes.Equal(m.Data, body) {
				t.Errorf("dead letter %s %s", m.Subject, m.Data)
			}
			want := nats.Header{
				"Plaspy-Original-Nats-Msg-Id": {id}, "Plaspy-Original-Nats-Foo": {"x"}, "Other": {"a", "b"},
				message.HeaderAttempts: {"1"}, message.HeaderSubject: {"plaspy.in.location.d"}, message.HeaderSequence: {fmt.Sprint(seq)},
				message.HeaderStatus: {jsonNumber(s)}, message.HeaderError: {`{"error":"scripted ` + jsonNumber(s) + `"}`},
				message.HeaderReason: {"rejected with status " + jsonNumber(s)},
			}
			for name, values := range want {
				if got := m.Header[name]; strings.Join(got, ",") != strings.Join(values, ",") {
					t.Errorf("%s is %q, want %q", name, got, values)
				}
			}
			if m.Header.Get(message.HeaderFirstTry) == "" || m.Header.Get(message.HeaderLastTry) == "" || m.Header.Get("Nats-Foo") != "" {
				t.Errorf("headers %v", m.Header)
			}
		})
	}
}

func jsonNumber(n int) string {
	b, _ := json.Marshal(n)
	return string(b)
}

// TestAnswerTooLarge: a message that the API took is not posted again because its
// answer is too large to be read.
func TestAnswerTooLarge(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	api := newFakeAPI(func(string, int, []byte) error {
		return &plaspy.Error{Endpoint: "locations", Status: 200, Err: plaspy.ErrTooLarge}
	})
	r.put("plaspy.in.location.d", location(1))
	run(t, r.consumer(api))
	r.waitCount(subjects.Inbound(), 0)
	m := r.messages(subjects.Results(), 1)[0]
	var got struct {
		Posted           bool
		Status, Attempts int
		Response         any
	}
	if err := json.Unmarshal(m.Data, &got); err != nil {
		t.Fatal(err)
	}
	if !got.Posted || got.Status != 200 || got.Attempts != 1 || got.Response != nil {
		t.Errorf("got %s", m.Data)
	}
}

// TestNotForPosting: a message that can never be posted is dead-lettered without a try,
// and its letter has every header that does not need one.
func TestNotForPosting(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, subject, body, dead, reason string }{
		{"no URL can hold the id", "plaspy.in.location.=2E=2E", string(location(1)), "plaspy.dlq.location.=2E=2E", "invalid: device id"},
		{"an id that is not UTF-8", "plaspy.in.location.=FF", string(location(1)), "plaspy.dlq.location.=FF", "invalid: device id"},
		{"invalid", "plaspy.in.location.d", `{"location":{"dateTime":"2026-01-02T03:04:01Z","latitude":91,"longitude":0}}`, "plaspy.dlq.location.d", "location.latitude"},
		{"no JSON", "plaspy.in.alert.d", `help`, "plaspy.dlq.alert.d", "body"},
		{"empty", "plaspy.in.alert.d", ``, "plaspy.dlq.alert.d", "body"},
		{"another device", "plaspy.in.alert.d", `{"deviceId":"e","alertName":"a","dateTime":"2026-01-02T03:04:01Z"}`, "plaspy.dlq.alert.d", "deviceId"},
		{"another kind", "plaspy.in.picture.d", `{}`, "plaspy.dlq.unknown", "unknown subject"},
		{"no device", "plaspy.in.location", `{}`, "plaspy.dlq.unknown", "unknown subject"},
		{"too many tokens", "plaspy.in.location.d.e", `{}`, "plaspy.dlq.unknown", "unknown subject"},
		{"no token of the encoding", "plaspy.in.location.a%20b", `{}`, "plaspy.dlq.unknown", "=25"},
		{"token too long", "plaspy.in.location." + strings.Repeat("x", publisher.MaxToken+1), `{}`, "plaspy.dlq.unknown", "at most"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			api := newFakeAPI(nil)
			r.put(tt.subject, []byte(tt.body))
			r.put("plaspy.in.location.d", location(1))
			run(t, r.consumer(api))
			r.waitCount(subjects.Inbound(), 0)
			m := r.messages(subjects.DeadLetters(), 1)[0]
			if m.Subject != tt.dead || !strings.Contains(m.Header.Get(message.HeaderReason), tt.reason) || string(m.Data) != tt.body {
				t.Errorf("dead letter %s %q %q", m.Subject, m.Header.Get(message.HeaderReason), m.Data)
			}
			if m.Header.Get(message.HeaderAttempts) != "0" || m.Header.Get(message.HeaderFirstTry) != "" || m.Header.Get(message.HeaderSubject) != tt.subject ||
				m.Header.Get(message.HeaderError) != m.Header.Get(message.HeaderReason) {
				t.Errorf("headers %v", m.Header)
			}
			if got := len(api.accepted()); got != 1 {
				t.Errorf("%d posts, want that of the good message", got)
			}
		})
	}
}

// TestTooOld: the age runs while the API is down and while it fails.
func TestTooOld(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		n    int // devices; enough of them make an outage
	}{{"one device fails", 1}, {"outage", 40}} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			api := newFakeAPI(func(string, int, []byte) error { return status(500) })
			r.putMany(2*tt.n, func(i int) string { return device(i % tt.n) })
			run(t, r.consumer(api, func(c *Consumer) { c.opt.MaxAge, c.opt.BackoffMax = time.Second, time.Hour }))
			r.waitCount(subjects.Inbound(), 0)
			for _, m := range r.messages(subjects.DeadLetters(), 2*tt.n) {
				if !strings.Contains(m.Header.Get(message.HeaderReason), "too old") {
					t.Errorf("reason %q", m.Header.Get(message.HeaderReason))
				}
			}
		})
	}
}

// waiter is an API client that waits, for a token or the budget, and never
// sends.
type waiter struct{}

func (waiter) Locations(ctx context.Context, _ string, _ []byte, _ plaspy.PostOptions) (plaspy.Answer, error) {
	<-ctx.Done()
	return plaspy.Answer{}, fmt.Errorf("wait for a token: %w", context.Cause(ctx))
}
func (w waiter) Alerts(ctx context.Context, id string, b []byte, o plaspy.PostOptions) (plaspy.Answer, error) {
	return w.Locations(ctx, id, b, o)
}

func TestTooOldWhileWaiting(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.put("plaspy.in.location.d", location(1))
	run(t, r.consumer(waiter{}, func(c *Consumer) { c.opt.MaxAge = 500 * time.Millisecond }))
	m := r.messages(subjects.DeadLetters(), 1)[0]
	if m.Header.Get(message.HeaderAttempts) != "0" || m.Header.Get(message.HeaderStatus) != "" || !strings.Contains(m.Header.Get(message.HeaderError), "no try") {
		t.Errorf("headers %v", m.Header)
	}
}

// slow is an API that answers late, and notices if its client does not wait.
type slow struct {
	*fakeAPI
	takes time.Duration
	taken func() // called for each post that went out
}

func (a slow) Locations(ctx context.Context, id string, body []byte, o plaspy.PostOptions) (plaspy.Answer, error) {
	answer, err := a.post(ctx, id, body, o)
	if err != nil {
		return answer, err
	}
	a.taken()
	select {
	case <-ctx.Done():
		return plaspy.Answer{}, context.Cause(ctx)
	case <-time.After(a.takes):
		return answer, nil
	}
}

// ages is a clock by which a message does not get older, until the test lets it. Its
// consumer gives messages up after an hour.
type ages struct {
	stored time.Time
	age    atomic.Int64
}

// agesOf returns the clock of a message that is in the inbound stream.
func (r *rig) agesOf(seq uint64) *ages {
	r.t.Helper()
	st, err := r.js.Stream(r.t.Context(), subjects.Inbound())
	if err != nil {
		r.t.Fatal(err)
	}
	m, err := st.GetMsg(r.t.Context(), seq)
	if err != nil {
		r.t.Fatal(err)
	}
	return &ages{stored: m.Time}
}

func (a *ages) is(age time.Duration) { a.age.Store(int64(age)) }

func (a *ages) set(c *Consumer) {
	c.opt.MaxAge, c.opt.now = time.Hour, func() time.Time { return a.stored.Add(time.Duration(a.age.Load())) }
}

// TestTooOldInFlight: a post that has gone out when its message is too old may have
// been taken, and is waited for.
func TestTooOldInFlight(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	clock := r.agesOf(r.put("plaspy.in.location.d", location(1)))
	clock.is(time.Hour - 300*time.Millisecond) // a post that has not gone out after 300 ms is withheld
	api := slow{newFakeAPI(nil), 600 * time.Millisecond, func() { clock.is(2 * time.Hour) }}
	run(t, r.consumer(api, clock.set))
	r.waitCount(subjects.Inbound(), 0)
	if posts, dead := len(api.accepted()), r.count(subjects.DeadLetters()); posts != 1 || dead != 0 {
		t.Errorf("%d posts, %d dead letters, want one post that was waited for", posts, dead)
	}
	r.waitCount(subjects.Results(), 1)
}

// TestForbidden: 403 is final when it comes again with a new token, and a token
// is renewed once a minute at most, for all messages together.
func TestForbidden(t *testing.T) {
	r := newRig(t)
	var renewals, fresh atomic.Int64
	api := newFakeAPI(func(id string, _ int, _ []byte) error {
		if id == "mine" && renewals.Load() > 0 {
			fresh.Add(1)
			return nil
		}
		return status(403)
	})
	r.put("plaspy.in.location.mine", location(1))
	for i := range 20 {
		r.put(subjects.InLocation(device(i)), location(i))
		r.put(subjects.InLocation(device(i)), location(i))
	}
	run(t, r.consumer(api, func(c *Consumer) { c.opt.Renew = func() { renewals.Add(1) } }))
	r.waitCount(subjects.Inbound(), 0)
	if renewals.Load() != 1 || fresh.Load() != 1 {
		t.Errorf("%d renewals, %d posts after it, want 1 and 1", renewals.Load(), fresh.Load())
	}
	for _, m := range r.messages(subjects.DeadLetters(), 40) {
		if m.Header.Get(message.HeaderAttempts) != "2" || m.Header.Get(message.HeaderStatus) != "403" {
			t.Errorf("headers %v", m.Header)
		}
	}
}

// TestRetryAfter: the API's wish is obeyed although the backoff is shorter.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var first, second atomic.Int64
	api := newFakeAPI(func(string, int, []byte) error {
		if first.CompareAndSwap(0, time.Now().UnixNano()) {
			return &plaspy.Error{Endpoint: "locations", Status: 429, RetryAfter: time.Second, HasRetryAfter: true}
		}
		second.Store(time.Now().UnixNano())
		return nil
	})
	r.put("plaspy.in.location.d", location(1))
	run(t, r.consumer(api))
	r.waitCount(subjects.Inbound(), 0)
	if got := time.Duration(second.Load() - first.Load()); got < time.Second {
		t.Errorf("tried again after %v, want at least 1 s", got)
	}
}

// TestResultsMissing: while results cannot be stored, nothing is acknowledged,
// no more is posted than there are workers, and nothing a second time.
func TestResultsMissing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := subjects.Streams(publisher.StreamOptions{Inbound: true})
	if err := r.js.DeleteStream(t.Context(), subjects.Results()); err != nil {
		t.Fatal(err)
	}
	api := newFakeAPI(nil)
	r.putMany(40, func(i int) string { return device(i % 10) })
	c := r.consumer(api, func(c *Consumer) { c.opt.pause = 100 * time.Millisecond })
	posters := c.opt.Workers
	stop := run(t, c)
	api.waitFor(t, "a post of each worker", func(took []accepted) bool { return len(took) == posters })
	natstest.Eventually(t, "trouble", func() bool { return c.Trouble() != "" })
	<-time.After(3 * c.opt.pause) // in which a worker could have gone on
	if got := len(api.accepted()); got != posters {
		t.Errorf("%d posts without a result, want at most the %d workers", got, posters)
	}
	if got := r.count(subjects.Inbound()); got != 40 {
		t.Errorf("%d messages in the stream, want all 40", got)
	}
	for _, want := range cfg {
		if want.Name == subjects.Results() {
			if _, err := r.js.CreateStream(t.Context(), want); err != nil {
				t.Fatal(err)
			}
		}
	}
	r.waitCount(subjects.Inbound(), 0)
	if again := checkOrder(t, api.accepted(), 40); again != 0 {
		t.Errorf("%d posted twice", again)
	}
	r.waitCount(subjects.Results(), 40)
	stop()
	if c.Trouble() != "" {
		t.Errorf("trouble afterwards: %s", c.Trouble())
	}
}

// TestInterest: a stream that would lose messages is refused, and reported.
func TestInterest(t *testing.T) {
	r := newRig(t)
	if err := r.js.DeleteStream(t.Context(), subjects.Inbound()); err != nil {
		t.Fatal(err)
	}
	cfg := jetstream.StreamConfig{Name: subjects.Inbound(), Subjects: []string{"plaspy.in.>"}, Retention: jetstream.InterestPolicy}
	if _, err := r.js.CreateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := openQueue(t.Context(), r.js, subjects, false, time.Minute); !errors.Is(err, errStream) {
		t.Errorf("got %v, want errStream", err)
	}
}

// TestLimitsStream checks that a message is deleted from an inbound stream that keeps
// acknowledged ones, or the next run would post it again.
func TestLimitsStream(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if err := r.js.DeleteStream(t.Context(), subjects.Inbound()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: subjects.Inbound(), Subjects: []string{"plaspy.in.>"}}); err != nil {
		t.Fatal(err)
	}
	api := newFakeAPI(nil)
	r.putMany(100, func(i int) string { return device(i % 7) })
	run(t, r.consumer(api))
	r.waitCount(subjects.Inbound(), 0)
	if again := checkOrder(t, api.accepted(), 100); again != 0 {
		t.Errorf("%d posted twice", again)
	}
}
