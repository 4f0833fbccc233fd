package streams

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

const subjects = publisher.Subjects("plaspy")

func TestMain(m *testing.M) { natstest.Main(m) }

func TestTooOld(t *testing.T) {
	for version, old := range map[string]bool{
		"2.10.29": true, "2.10.x": true, "2.10-RC.1": true, "1.4.1": true, "2.11.0": false, "2.11.0-RC.1": false, "2.15.2": false, "3.0.0": false, "custom": false, "": false,
	} {
		if err := TooOld(version); (err != nil) != old {
			t.Errorf("TooOld(%q) = %v", version, err)
		}
	}
}

func TestParseVersion(t *testing.T) {
	tests := []struct {
		version string
		want    [3]int
		known   bool
	}{
		{"2.15.2", [3]int{2, 15, 2}, true}, {"2.12.0-RC.1", [3]int{2, 12, 0}, true}, {"3.0", [3]int{3, 0, 0}, true},
		{"", [3]int{}, false}, {"dev", [3]int{}, false}, {"2", [3]int{}, false}, {"2.10.x", [3]int{2, 10, 0}, true},
	}
	for _, tt := range tests {
		major, minor, patch, known := ParseVersion(tt.version)
		if got := [3]int{major, minor, patch}; got != tt.want || known != tt.known {
			t.Errorf("ParseVersion(%q) = %v, %t, want %v, %t", tt.version, got, known, tt.want, tt.known)
		}
	}
}

func TestOtherSettingsAreLoggedOnce(t *testing.T) {
	srv := natstest.Start(t)
	js := natstest.JetStream(t, srv.Client(t))
	want := subjects.Streams(publisher.StreamOptions{Retention: time.Hour})
	other := want[0]
	other.MaxMsgs = 7
	if _, err := js.CreateStream(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	k := New(Options{Streams: want, Log: slog.New(slog.NewTextHandler(&log, nil))})
	for range 2 {
		reports, err := publisher.EnsureStreams(t.Context(), js, want)
		if err != nil {
			t.Fatal(err)
		}
		k.logReports(reports)
	}
	if got := strings.Count(log.String(), "max_msgs is 7, the bridge would set 0"); got != 1 {
		t.Errorf("logged %d times, want once: %s", got, log.String())
	}
}

// run keeps streams on a server until the test ends.
func run(t *testing.T, srv *natstest.Server, o publisher.StreamOptions, reg prometheus.Registerer) (k *Keeper, changed chan struct{}) {
	t.Helper()
	conn := srv.Conn(t)
	pub, err := publisher.New(conn, subjects, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	k = New(Options{Streams: subjects.Streams(o), Log: slog.New(slog.DiscardHandler), Registerer: reg})
	k.allEvery = 100 * time.Millisecond
	changed = make(chan struct{}, 100)
	natstest.Run(t, func(ctx context.Context) { k.Run(ctx, conn, pub, func() { changed <- struct{}{} }) })
	return k, changed
}

// TestUsage checks the metrics of the size and the limit of each stream and of the
// account.
func TestUsage(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	reg := prometheus.NewRegistry()
	k, _ := run(t, srv, publisher.StreamOptions{Inbound: true, MaxBytes: 1 << 20}, reg)
	natstest.Eventually(t, "ready", k.Ready)
	if got := testutil.ToFloat64(k.usage.limit.WithLabelValues("PLASPY_EVENTS")); got != 1<<20 {
		t.Errorf("limit %v, want %v", got, 1<<20)
	}
	if got := testutil.ToFloat64(k.usage.limit.WithLabelValues("PLASPY_INBOUND")); got != 0 {
		t.Errorf("limit %v of a stream without one", got)
	}
	if _, err := natstest.Own(t, k.pub).Publish(t.Context(), "plaspy.in.location.d", make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	natstest.Eventually(t, "the size of the stream", func() bool { return testutil.ToFloat64(k.usage.bytes.WithLabelValues("PLASPY_INBOUND")) > 1000 })
	natstest.Eventually(t, "the size of the account", func() bool { return testutil.ToFloat64(k.usage.accountBytes) > 1000 })
}

// TestSmallStore: a store that has no room for the limits that the bridge chose is
// used without them.
func TestSmallStore(t *testing.T) {
	srv := natstest.Start(t, func(o *server.Options) { o.JetStreamMaxStore = 3 << 20 })
	k, _ := run(t, srv, publisher.StreamOptions{Inbound: true}, nil)
	natstest.Eventually(t, "ready", k.Ready)
	st, err := natstest.Own(t, k.pub).Stream(t.Context(), "PLASPY_DLQ")
	if err != nil {
		t.Fatal(err)
	}
	if got := st.CachedInfo().Config.MaxBytes; got > 0 {
		t.Errorf("max_bytes %d", got)
	}
}

// TestFullStore checks that the state reports a full store.
func TestFullStore(t *testing.T) {
	srv := natstest.Start(t, func(o *server.Options) { o.JetStreamMaxStore = 3 << 20 })
	k, _ := run(t, srv, publisher.StreamOptions{MaxBytes: 1 << 30}, nil)
	natstest.Eventually(t, "the store is full", func() bool { return strings.Contains(k.Health().Reason, "the JetStream store is full") })
}

// TestLoss checks that the stream is read again after it lost messages.
func TestLoss(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	k, changed := run(t, srv, publisher.StreamOptions{Retention: time.Hour}, nil)
	natstest.Eventually(t, "ready", k.Ready)
	<-changed
	js := natstest.Own(t, k.pub)
	for range 3 {
		if _, err := js.Publish(t.Context(), "plaspy.location.d", []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := k.pub.Reader().Observe(t.Context()); err != nil { // as the next look will
		t.Fatal(err)
	}
	st, err := js.Stream(t.Context(), "PLASPY_EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-changed
	if err := js.DeleteStream(t.Context(), "PLASPY_EVENTS"); err != nil {
		t.Fatal(err)
	}
	<-changed
	natstest.Eventually(t, "ready", k.Ready)
	if _, err := js.Stream(t.Context(), "PLASPY_EVENTS"); err != nil {
		t.Error(err)
	}
}

// TestMissing: a stream that was deleted is created again, although the events stream
// lost nothing.
func TestMissing(t *testing.T) {
	t.Parallel()
	k, _ := run(t, natstest.Start(t), publisher.StreamOptions{Inbound: true}, nil)
	natstest.Eventually(t, "ready", k.Ready)
	js := natstest.Own(t, k.pub)
	names := []string{"KV_plaspy_last", "PLASPY_INBOUND", "PLASPY_RESULTS", "PLASPY_DLQ"}
	for _, name := range names {
		if err := js.DeleteStream(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range names {
		natstest.Eventually(t, name, func() bool { _, err := js.Stream(t.Context(), name); return err == nil })
	}
}

// TestNeeds checks that Needs lists the permissions for requests that a keeper sends.
func TestNeeds(t *testing.T) {
	want := map[string]bool{"$JS.API.INFO": false, "$JS.API.STREAM.INFO.PLASPY_DLQ": false, "$JS.API.STREAM.CREATE.KV_plaspy_last": false}
	for _, p := range Needs(subjects, publisher.StreamOptions{Inbound: true}) {
		if _, known := want[p.Publish]; known {
			want[p.Publish] = true
		}
	}
	for subject, found := range want {
		if !found {
			t.Errorf("%s is not among the needs", subject)
		}
	}
}
