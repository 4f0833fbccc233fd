package replica

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"plaspy-bridge/auth/logtest"
	"plaspy-bridge/publisher/natstest"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// told is a replica's settings and its log.
type told struct {
	logtest.Log
	reg *prometheus.Registry
}

func (w *told) by(settings map[string]string) func(*node, *Options) {
	w.reg = prometheus.NewRegistry()
	return func(_ *node, o *Options) {
		o.Settings, o.Registerer = settings, w.reg
		o.Log = slog.New(slog.NewTextHandler(w, nil))
	}
}

func (w *told) gauge(t *testing.T, want string) {
	t.Helper()
	err := testutil.GatherAndCompare(w.reg, strings.NewReader(`# HELP plaspy_bridge_replicas_different_settings Live replicas whose settings differ from this replica's, of those that must agree.
# TYPE plaspy_bridge_replicas_different_settings gauge
plaspy_bridge_replicas_different_settings `+want+"\n"), "plaspy_bridge_replicas_different_settings")
	if err != nil {
		t.Error(err)
	}
}

// TestDifferences: a replica with other settings is logged, once when it joins and
// once when it is gone, and takes part all the same.
func TestDifferences(t *testing.T) {
	t.Parallel()
	r := newRig(t, 100)
	log := &told{}
	long := func(_ *node, o *Options) { o.Lease = 5 * testLease } // a busy machine loses none
	a := r.start("a", long, log.by(map[string]string{"devices": "1", "limits": "2", "mine": "3"}))
	alike := r.start("alike", long, new(told).by(map[string]string{"devices": "1", "limits": "2", "theirs": "4"}))
	silent := r.start("silent", long) // an earlier version says nothing
	r.awaitDivided(a, alike, silent)
	if got := a.Differences(); len(got) != 0 {
		t.Errorf("differences %v, want none", got)
	}
	log.gauge(t, "0")
	b := r.start("b", long, new(told).by(map[string]string{"devices": "9", "limits": "8"}))
	r.awaitDivided(a, alike, silent, b)
	want := []Difference{{"b", []string{"devices", "limits"}}}
	r.await("the difference is seen", func() bool { return cmp.Equal(a.Differences(), want) })
	log.gauge(t, "1")
	other := []Difference{{"a", []string{"devices", "limits"}}, {"alike", []string{"devices", "limits"}}}
	r.await("it is seen on the other side", func() bool { return cmp.Equal(b.Differences(), other) })
	r.elapse(2 * testLease)
	if n := log.Count(`msg="replica has different settings" replica=b differs="devices, limits"`); n != 1 {
		t.Errorf("logged %d times, want once", n)
	}
	b.kill() // it counts until its lease has run out
	r.await("it is over", func() bool { return len(a.Differences()) == 0 })
	if n := log.Count("no longer has different settings"); n != 1 {
		t.Errorf("the end is logged %d times, want once", n)
	}
	log.gauge(t, "0")
	r.awaitDivided(a, alike, silent)
}

// TestPeers checks that Peers lists the live replicas and writes nothing.
func TestPeers(t *testing.T) {
	t.Parallel()
	r := newRig(t, 10)
	js := natstest.JetStream(t, r.server.Client(t))
	if got, err := Peers(t.Context(), js, subjects); err != nil || len(got) != 0 {
		t.Errorf("without a bucket: %v, %v", got, err)
	}
	long := func(_ *node, o *Options) { o.Lease = DefaultLease }
	b := r.start("b 1", long, new(told).by(map[string]string{"devices": "1"}))
	a := r.start("a", long)
	r.awaitDivided(a, b)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	kv := r.bucket()
	// Values without a meaning are left out, and so are replicas that left long ago.
	if _, err := kv.Put(ctx, memberPrefix+"x.y", []byte("garbage")); err != nil {
		t.Fatal(err)
	}
	gone, err := json.Marshal(record{ID: "gone", Left: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(ctx, memberPrefix+"gone.y", gone); err != nil {
		t.Fatal(err)
	}
	got, err := Peers(ctx, js, subjects)
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		if got[i].Age < 0 || got[i].Age > DefaultLease {
			t.Errorf("%s was heard of %v ago", got[i].ID, got[i].Age)
		}
		got[i].Age = 0
	}
	want := []Peer{{ID: "a"}, {ID: "b 1", Settings: map[string]string{"devices": "1"}}}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatal(d)
	}
	if d := cmp.Diff([]string{"devices"}, got[1].Differs(map[string]string{"devices": "2", "other": "3"})); d != "" {
		t.Error(d)
	}
	if got[0].Differs(map[string]string{"devices": "2"}) != nil {
		t.Error("a replica without settings counts as different")
	}
	st, err := js.Stream(ctx, "KV_"+subjects.ReplicasBucket())
	if err != nil {
		t.Fatal(err)
	}
	r.await("no consumer is left but the replicas' own", func() bool {
		info, err := st.Info(ctx)
		return err == nil && info.State.Consumers <= 2
	})
}
