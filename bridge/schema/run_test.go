package schema_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge"
	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/control"
	"plaspy-bridge/bridge/schema/plaspy"
	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/bridge/sim/account"
	"plaspy-bridge/bridge/sim/fleet"
	"plaspy-bridge/bridge/trace/tracetest"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

// run is a real bridge between a simulated API and an embedded server, and
// everything that it says, held against the document as it comes.
type run struct {
	*asyncapi
	t     *testing.T
	api   *sim.Server
	conn  *nats.Conn
	js    jetstream.JetStream
	heard *nats.Subscription
	seen  map[string]bool // channels, and kinds of message
}

// start runs a bridge until the test ends and waits until it publishes.
func start(t *testing.T, o sim.Options, set func(*config.Config)) *run {
	t.Helper()
	r := &run{asyncapi: read(t, "plaspy"), t: t, api: sim.New(o), seen: map[string]bool{}}
	l, err := r.api.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	base, err := url.Parse(l.URL)
	if err != nil {
		t.Fatal(err)
	}
	cfg := config.Config{
		BaseURL: *base, Username: "sim", APIKey: "sim-key", Timeout: time.Minute,
		Prefix: "plaspy", StreamReplicas: 1, Retention: time.Hour, ReplicaID: "test", DataDir: t.TempDir(), EmbeddedAddr: "127.0.0.1:0",
		Workers: 4, PollInterval: 100 * time.Millisecond, Schedule: config.ScheduleFixed, TripStartWeight: 1, DevicesRefresh: 200 * time.Millisecond,
		IgnoreFields: []string{"inactiveSeconds"}, BackfillAfter: time.Second, Query: true, Inbound: true, InboundWorkers: 4, InboundMaxAge: time.Hour,
		BackoffInitial: 50 * time.Millisecond, BackoffMax: time.Second, ShutdownTimeout: time.Minute,
	}
	set(&cfg)
	b, err := bridge.New(t.Context(), cfg, "1.0.0", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if r.conn, err = nats.Connect(b.ClientURL(), nats.Timeout(time.Minute)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.conn.Close)
	r.js = natstest.JetStream(t, r.conn)
	if r.heard, err = r.conn.SubscribeSync("plaspy.>"); err != nil {
		t.Fatal(err)
	}
	if err := r.conn.Flush(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	r.until("device change added") // so the streams are there
	return r
}

// next gives the next message of the bridge, or of a gateway, checked.
func (r *run) next(what string, within time.Duration) (channel string, m *nats.Msg) {
	r.t.Helper()
	for end := time.Now().Add(within); ; {
		m, err := r.heard.NextMsg(time.Until(end))
		if err != nil {
			r.t.Fatalf("waiting for %s: %v; seen so far: %v", what, err, r.seen)
		}
		if strings.HasPrefix(m.Subject, "plaspy.api.") {
			continue // a request of this test
		}
		channel, err := r.channel(m.Subject)
		if err != nil {
			if !strings.HasPrefix(m.Subject, "plaspy.in.") {
				r.t.Error(err)
			}
			continue
		}
		if strings.HasPrefix(channel, "in") {
			continue // a gateway's, which may be wrong
		}
		r.check(channel, m)
		return channel, m
	}
}

func (r *run) check(channel string, m *nats.Msg) {
	r.t.Helper()
	message := r.message(channel)
	if err := r.body(r.t, message, m.Data); err != nil {
		r.t.Errorf("%s %s: %v", m.Subject, m.Data, err)
	}
	if err := r.headers(r.t, message, m.Header); err != nil {
		r.t.Errorf("headers of %s %v: %v", m.Subject, m.Header, err)
	}
	r.decodes(m)
	r.seen[channel] = true
	for name, value := range kindsOf(message, m) {
		r.seen[message+" "+name+" "+fmt.Sprint(value)] = true
	}
}

// kindsOf are the members and headers that distinguish kinds of a message.
func kindsOf(message string, m *nats.Msg) map[string]any {
	if message == "deadLetter" {
		return map[string]any{"status": m.Header.Get("Plaspy-Status")}
	}
	var body map[string]any
	_ = json.Unmarshal(m.Data, &body) // was checked
	kinds := map[string]any{}
	for _, name := range []string{"state", "source", "change", "backfilled", "origin", "alert", "posted"} {
		if v, ok := body[name]; ok {
			kinds[name] = v
		}
	}
	return kinds
}

// until listens until each of these was seen.
func (r *run) until(kinds ...string) {
	r.t.Helper()
	for _, kind := range kinds {
		for end := time.Now().Add(60 * time.Second); !r.seen[kind]; {
			r.next(kind, time.Until(end))
		}
	}
}

// location listens until the location with this time was published.
func (r *run) location(at time.Time) {
	r.t.Helper()
	want := fmt.Sprintf("%q", at.UTC().Format(time.RFC3339))
	for end := time.Now().Add(60 * time.Second); ; {
		if channel, m := r.next("the location of "+want, time.Until(end)); channel == "location" && strings.Contains(string(m.Data), want) {
			return
		}
	}
}

func (r *run) publish(subject, body string, header ...string) {
	r.t.Helper()
	m := nats.NewMsg(subject)
	m.Data = []byte(body)
	for i := 0; i < len(header); i += 2 {
		m.Header.Set(header[i], header[i+1])
	}
	if _, err := r.js.PublishMsg(r.t.Context(), m); err != nil {
		r.t.Fatal(err)
	}
}

// show has the API show a location of a device from now on.
func (r *run) show(device string, at time.Time, more string) {
	r.api.SetLocation(device, fmt.Appendf(nil, `{"dateTime":%q,"latitude":4.5,"longitude":-74.25%s}`, at.UTC().Format(time.RFC3339), more))
}

// TestMessagesOfARealRun makes a bridge publish every kind of event.
func TestMessagesOfARealRun(t *testing.T) {
	r := start(t, sim.Options{Devices: 4, IDs: []string{"dev 1"}, Seed: 1, Profile: fleet.EverySecond, Record: 10}, func(c *config.Config) {
		c.Backfill, c.AlertHistory, c.SilentAfter = true, true, 700*time.Millisecond
		t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", tracetest.Start(t).URL) // so that messages carry every header
	})
	begun := time.Now().Add(time.Hour).Truncate(time.Second) // newer than the fleet's own fixes
	r.until("location")

	r.show("dev 1", begun, `,"alerts":["High Speed"],"alertTexts":["Speeding"],"hasCriticalAlert":true,"speed":1.50,"unknown":{"x":[]}`)
	r.until("alert state raised", "alert alert High Speed", "alert alert silent")
	r.show("dev 1", begun.Add(time.Second), `,"alerts":[]`)
	r.until("alert state cleared")

	r.api.SetDevice("device0002", func(d *account.DeviceInfo) { d.Name = "another" })
	r.api.RemoveDevice("device0003")
	r.until("device change changed", "device change removed")

	// Posted between the published fix and the next one: the API shows both when it
	// is asked for the time between. A poll that sees the posted location before the
	// next fix publishes it at once, and nothing is left to back-fill: then once more.
	kinds := []string{"location backfilled true", "location origin inbound", "alert source history"}
	lacks := func() bool { return slices.ContainsFunc(kinds, func(kind string) bool { return !r.seen[kind] }) }
	for at := begun.Add(time.Minute); lacks(); at = at.Add(time.Minute) {
		if at.After(begun.Add(time.Hour)) {
			t.Fatalf("nothing is back-filled; seen so far: %v", r.seen)
		}
		delete(r.seen, "resultLocation")
		delete(r.seen, "resultAlert")
		r.publish("plaspy.in.location.dev=201", fmt.Sprintf(`{"dateTime":%q,"latitude":4.6,"longitude":-74}`, at.UTC().Format(time.RFC3339)))
		r.publish("plaspy.in.alert.dev=201", fmt.Sprintf(`{"dateTime":%q,"alertName":"Panic"}`, at.Add(time.Second).UTC().Format(time.RFC3339)))
		r.until("resultLocation", "resultAlert")
		next := at.Add(20 * time.Second)
		r.show("dev 1", next, "")
		r.location(next)
	}

	r.publish("plaspy.in.location.nobody", `{"dateTime":"2026-01-02T03:04:05Z","latitude":1,"longitude":2}`, "X-Own", "kept", "Nats-Msg-Id", "id of its own")
	r.publish("plaspy.in.alert.nobody", `not JSON`)
	r.publish("plaspy.in.else.where", "\xff\x00")
	r.until("deadLetter status 404", "deadLetter status ", "deadLocation", "deadAlert", "deadUnknown", "result posted false")

	t.Run("bucket", func(t *testing.T) { r.bucket(t) })
	t.Run("reply", func(t *testing.T) { r.replyTo(t, begun.Add(time.Hour)) })
	t.Run("queries", func(t *testing.T) { r.queries(t) })
	t.Run("control", func(t *testing.T) { r.control(t) })
}

// bucket checks the values of the last-location bucket against the document.
func (r *run) bucket(t *testing.T) {
	c, err := r.js.OrderedConsumer(t.Context(), "KV_plaspy_last", jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	it, err := c.Messages()
	if err != nil {
		t.Fatal(err)
	}
	defer it.Stop()
	for n := 0; n < 3; {
		m, err := it.Next(jetstream.NextMaxWait(time.Minute))
		if err != nil {
			t.Fatalf("%d entries, want 3: %v", n, err)
		}
		if m.Headers().Get("KV-Operation") != "" {
			continue // the key of the device that was removed
		}
		n++
		channel, err := r.channel(m.Subject())
		if err != nil || channel != "last" {
			t.Fatalf("%s: channel %q, %v", m.Subject(), channel, err)
		}
		r.check(channel, &nats.Msg{Subject: m.Subject(), Header: m.Headers(), Data: m.Data()})
	}
}

// replyTo asks for a result on a subject of its own.
func (r *run) replyTo(t *testing.T, at time.Time) {
	replies, err := r.conn.SubscribeSync("gateway.1.results")
	if err != nil {
		t.Fatal(err)
	}
	body := fmt.Sprintf(`{"location":{"dateTime":%q,"latitude":4.5,"longitude":-74.25}}`, at.UTC().Format(time.RFC3339))
	r.publish("plaspy.in.location.device0004", body, "Reply-To", "gateway.1.results")
	m, err := replies.NextMsg(time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	r.check("resultLocation", m)
}

func decodeAnswer(m *nats.Msg) map[string]any {
	var v map[string]any
	_ = json.Unmarshal(m.Data, &v) // a refusal has no body
	return v
}

// TestInboundFormsAreWhatTheBridgeTakes gives a bridge messages that the
// document allows and messages that it does not, and compares verdicts.
func TestInboundFormsAreWhatTheBridgeTakes(t *testing.T) {
	t.Parallel()
	r := start(t, sim.Options{IDs: []string{"d"}}, func(*config.Config) {})
	const at, loc = `"2026-01-02T03:04:05Z"`, `{"dateTime":"2026-01-02T03:04:05Z","latitude":4.5,"longitude":-74.25}`
	for _, tt := range []struct {
		kind, body string
		taken      bool
	}{
		{"location", loc, true},
		{"location", `{"location":` + loc + `}`, true},
		{"location", `{"location":` + loc + `,"from":` + at + `,"to":null,"deviceId":"d","anything":[1]}`, true},
		{"location", `{"deviceId":"d","name":"n","observedAt":"2026-01-02T03:04:05.678Z","backfilled":true,"location":` + loc + `}`, true},
		{"location", `{"dateTime":"2026-01-02T03:04:05","latitude":4.5,"longitude":-74.25,"location":null,"to":null}`, true},
		{"location", `{"dateTime":"2026-01-02T03:04Z","latitude":90,"longitude":-180}`, true},
		{"location", `{"dateTime":"2026-01-02T03:04:05.5+0500","latitude":1e1,"longitude":0}`, true},
		{"location", `{"dateTime":"2026-01-02","latitude":1,"longitude":0}`, true},
		{"location", `[` + loc + `,{"location":` + loc + `}]`, true},
		{"location", `[` + loc + `,{}]`, false},
		{"location", `{}`, false},
		{"location", `[]`, false},
		{"location", `null`, false},
		{"location", `{"location":"here"}`, false},
		{"location", `{"location":{"dateTime":"2026-01-02T03:04:05Z","latitude":4.5}}`, false},
		{"location", `{"dateTime":"2026-01-02T03:04:05Z","latitude":91,"longitude":0}`, false},
		{"location", `{"dateTime":"2026-01-02T03:04:05Z","latitude":"4.5","longitude":0}`, false},
		{"location", `{"dateTime":"yesterday","latitude":4.5,"longitude":0}`, false},
		{"location", `{"dateTime":1767323045,"latitude":4.5,"longitude":0}`, false},
		{"location", `{"dateTime":"2026-01-02T03:04:05Z","latitude":4.5,"longitude":0,"from":` + at + `}`, false},
		{"location", `{"location":` + loc + `,"from":7}`, false},
		{"location", `{"location":` + loc + `,"deviceId":7}`, false},
		{"alert", `{"from":` + at + `,"to":` + at + `}`, true},
		{"alert", `{"from":` + at + `,"to":` + at + `,"alertName":"SOSButton"}`, true},
		{"alert", `{"alertName":"SOSButton","dateTime":` + at + `}`, true},
		{"alert", `{"alertName":"SOSButton","dateTime":` + at + `,"from":null}`, true},
		{"alert", `{"deviceId":"d","alert":"High Speed","state":"raised","critical":true,"dateTime":` + at + `,"latitude":1,"longitude":2,"observedAt":"2026-01-02T03:04:05.678Z"}`, true},
		{"alert", `{}`, false},
		{"alert", `"SOSButton"`, false},
		{"alert", `{"from":` + at + `}`, false},
		{"alert", `{"dateTime":` + at + `}`, false},
		{"alert", `{"alertName":"SOSButton"}`, false},
		{"alert", `{"alertName":"","dateTime":` + at + `}`, false},
		{"alert", `{"alertName":7,"dateTime":` + at + `}`, false},
		{"alert", `{"alertName":"SOSButton","dateTime":"soon"}`, false},
		{"alert", `{"alert":"","dateTime":` + at + `}`, false},
	} {
		message := map[string]string{"location": "inboundLocation", "alert": "inboundAlert"}[tt.kind]
		err := r.body(t, message, []byte(tt.body))
		if (err == nil) != tt.taken {
			t.Errorf("the document's verdict on the %s %s: %v", tt.kind, tt.body, err)
		}
		r.publish("plaspy.in."+tt.kind+".d", tt.body)
		for {
			channel, m := r.next("the fate of "+tt.body, time.Minute)
			if strings.HasPrefix(channel, "result") {
				var result struct{ Posted bool }
				if err := json.Unmarshal(m.Data, &result); err != nil {
					t.Fatal(err)
				}
				if got := result.Posted; got != tt.taken {
					t.Errorf("the bridge's verdict on the %s %s: %s %v", tt.kind, tt.body, channel, m.Header)
				}
				break
			}
		}
	}
}

// control writes the entries of the printed types, which the document allows, and
// reads their effect in the answer of why.
func (r *run) control(t *testing.T) {
	kv, err := r.js.CreateOrUpdateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: plaspy.ControlBucket, History: 1})
	if err != nil {
		t.Fatal(err)
	}
	paused := false
	for key, value := range map[string]any{
		plaspy.DeviceControlKey("dev 1"): plaspy.ControlEntry{Interval: "5s", Weight: 8, Paused: &paused, SetBy: "dispatch"},
		plaspy.GroupControlKey("night"):  plaspy.ControlEntry{Weight: 2},
		plaspy.FleetControlKey:           plaspy.FleetControlEntry{RateLimit: 100_000, LogLevel: "debug", Exclude: []string{"nobody"}},
	} {
		data, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		channel, err := r.channel(publisher.BucketKey(plaspy.ControlBucket, key))
		if err != nil {
			t.Fatal(err)
		}
		if err := r.body(t, r.message(channel), data); err != nil {
			t.Errorf("%s: %v", key, err)
		}
		if entry, err := control.Parse(key, data); err != nil || len(entry.Ignored) > 0 {
			t.Errorf("%s %s: %v, ignored %v", key, data, err, entry.Ignored)
		}
		if _, err := kv.Put(t.Context(), key, data); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(60 * time.Second); ; {
		m, err := r.conn.Request(plaspy.QuerySubject("why", "dev 1"), nil, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		var why plaspy.WhyAnswer
		if err := plaspy.DecodeAnswer(m.Header, m.Data, &why); err != nil {
			t.Fatal(err)
		}
		if len(why.Control) > 0 {
			if err := r.body(t, "whyAnswer", m.Data); err != nil {
				t.Errorf("%s: %v", m.Data, err)
			}
			if c := why.Control[0]; c.Entry != "device.dev=201" || c.Interval != "5s" || c.Weight != 8 || c.SetBy != "dispatch" || c.SetAt.IsZero() {
				t.Errorf("in force: %+v", why.Control)
			}
			return
		}
		if time.Now().After(end) {
			t.Fatalf("no entry in force: %s", m.Data)
		}
	}
}
