package control

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/auth/logtest"
	"plaspy-bridge/publisher/natstest"
)

func TestMain(m *testing.M) { natstest.Main(m) }

// follow runs a watcher and returns the rules as they come.
func follow(t *testing.T, srv *natstest.Server) (b *Bucket, got <-chan *Rules, log *logtest.Log) {
	t.Helper()
	nc := srv.Client(t)
	js := natstest.JetStream(t, nc)
	b, log = Open(js, "plaspy", 1), new(logtest.Log)
	w := NewWatcher(b, nc.IsConnected, slog.New(slog.NewTextHandler(log, nil)), nil)
	w.every = 10 * time.Millisecond
	rules := make(chan *Rules, 100)
	natstest.Run(t, func(ctx context.Context) { w.Run(ctx, func(r *Rules) { rules <- r }) })
	return b, rules, log
}

// until waits for rules that satisfy ok.
func until(t *testing.T, got <-chan *Rules, what string, ok func(*Rules) bool) *Rules {
	t.Helper()
	limit := time.After(time.Minute)
	for {
		select {
		case r := <-got:
			if ok(r) {
				return r
			}
		case <-limit:
			t.Fatal("never: ", what)
		}
	}
}

// again writes an entry that ends soon, as often as it takes until rules satisfy ok. A busy
// machine may see it only after its end.
func again(t *testing.T, got <-chan *Rules, what string, write func(), ok func(*Rules) bool) {
	t.Helper()
	tick := time.NewTicker(time.Second / 2)
	defer tick.Stop()
	limit := time.After(time.Minute)
	for write(); ; {
		select {
		case r := <-got:
			if ok(r) {
				return
			}
		case <-tick.C:
			write()
		case <-limit:
			t.Fatal("never: ", what)
		}
	}
}

func set(t *testing.T, b *Bucket, key, value string) {
	t.Helper()
	if err := b.put(t.Context(), key, []byte(value)); err != nil {
		t.Fatal(err)
	}
}

// TestWatcher follows entries through their lives: written, changed, unreadable,
// ended, removed; and the bucket through its own: made, deleted, made again by an
// operator with a TTL.
func TestWatcher(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	b, got, log := follow(t, srv)
	if err := b.Set(t.Context(), DeviceKey("a"), Entry{Weight: 2}); err != nil {
		t.Fatal(err)
	}
	until(t, got, "weight 2", func(r *Rules) bool { return r.Device("a", nil).Weight == 2 })
	set(t, b, "device.a", `{"weight":3}`)
	until(t, got, "weight 3", func(r *Rules) bool { return r.Device("a", nil).Weight == 3 })
	set(t, b, "device.a", `{"weight":"garbage"}`)
	until(t, got, "unreadable", func(r *Rules) bool { return r.Device("a", nil).Weight == 0 && len(r.Unreadable()) == 1 })
	set(t, b, "fleet", `{"paused":true}`)
	until(t, got, "paused", func(r *Rules) bool { return r.Device("a", nil).Paused })
	if n := log.Count("ignoring a malformed control entry"); n != 1 {
		t.Errorf("unreadable value logged %d times, want once", n)
	}
	end := Entry{Weight: 5, Until: time.Now().Add(time.Second)}
	if err := b.Set(t.Context(), DeviceKey("a"), end); err != nil {
		t.Fatal(err)
	}
	until(t, got, "the end", func(r *Rules) bool { return r.Device("a", nil).Weight == 0 && r.Len() == 1 })
	if there, err := b.Clear(t.Context(), FleetKey); !there || err != nil {
		t.Errorf("clear: %v, %v", there, err)
	}
	until(t, got, "cleared", func(r *Rules) bool { return r.Len() == 0 })

	set(t, b, "fleet", `{"paused":true}`)
	until(t, got, "paused again", func(r *Rules) bool { return r.Len() == 1 })
	if err := b.js.DeleteKeyValue(t.Context(), "plaspy_control"); err != nil {
		t.Fatal(err)
	}
	until(t, got, "bucket deleted", func(r *Rules) bool { return r.Len() == 0 })
	_, err := b.js.CreateOrUpdateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "plaspy_control", TTL: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	again(t, got, "weight 7", func() { set(t, b, "fleet", `{"weight":7}`) }, func(r *Rules) bool { return r.Device("a", nil).Weight == 7 })
	until(t, got, "expired with the bucket's TTL", func(r *Rules) bool { return r.Len() == 0 })
}

// TestServerAway checks that entries stay in force while NATS is away, that they
// end in time all the same, and that changes after a restart of the server are
// followed.
func TestServerAway(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, natstest.Listen)
	b, got, _ := follow(t, srv)
	if err := b.Set(t.Context(), DeviceKey("b"), Entry{Weight: 3}); err != nil { // it creates the bucket
		t.Fatal(err)
	}
	again(t, got, "both", func() {
		if err := b.Set(t.Context(), DeviceKey("a"), Entry{Weight: 2, Until: time.Now().Add(time.Second)}); err != nil {
			t.Fatal(err)
		}
	}, func(r *Rules) bool { return r.Len() == 2 })
	srv.Kill()
	r := until(t, got, "the end of one", func(r *Rules) bool { return r.Len() == 1 })
	if r.Device("b", nil).Weight != 3 {
		t.Error("an entry was dropped while NATS was away")
	}
	srv.Restart()
	ctx := t.Context()
	for b.put(ctx, "device.b", []byte(`{"weight":4}`)) != nil && ctx.Err() == nil {
		t.Log("the client has not connected again yet")
	}
	until(t, got, "weight 4", func(r *Rules) bool { return r.Device("b", nil).Weight == 4 })
}

// TestOperatorsBucket checks that a tool that creates the bucket as well finds no
// other settings.
func TestOperatorsBucket(t *testing.T) {
	js := natstest.JetStream(t, natstest.Start(t).Client(t))
	b := Open(js, "my-fleet", 1)
	if there, err := b.Clear(t.Context(), FleetKey); there || err != nil {
		t.Errorf("clear without a bucket: %v, %v", there, err)
	}
	if err := b.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "my_fleet_control"}); err != nil {
		t.Error("created a second time: ", err)
	}
}

// TestGarbage writes values and keys that mean nothing beside one that does. Each is reported once, with the reason,
// and has no effect.
func TestGarbage(t *testing.T) {
	srv := natstest.Start(t)
	b, got, log := follow(t, srv)
	if err := b.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	garbage := map[string]string{
		"device.empty": "", "device.null": "null", "device.list": "[]", "device.text": "\x00\x1b[2J\xff", "device.bom": "\ufeff{}",
		"device.deep":     `{"x":` + strings.Repeat("[", 30_000) + strings.Repeat("]", 30_000) + "}",
		"device.open":     strings.Repeat(`{"interval":`, 5000),
		"device.huge":     `{"set_by":"` + strings.Repeat("x", 900_000) + `"}`,
		"device.twice":    `{"interval":"5s","interval":5}`,
		"device.minus":    `{"interval":"-5s"}`,
		"device.nan":      `{"weight":NaN}`,
		"device.infinite": `{"weight":1e999}`,
		"device.float":    `{"interval":1e9}`,
		"device.types":    `{"paused":"true","until":5,"weight":[8]}`,
		"device.dev 1":    "", // no key of a bucket
		"device":          "{}", "device.a.b": "{}", "device.=zz": "{}", "group.": "", "fleet.x": "{}", "DEVICE.a": "{}", "a/b": "{}",
	}
	kv, err := b.js.KeyValue(t.Context(), b.name)
	if err != nil {
		t.Fatal(err)
	}
	stored := 0
	for key, value := range garbage {
		if _, err := kv.PutString(t.Context(), key, value); err == nil {
			stored++
		}
	}
	if stored < 19 {
		t.Fatalf("the bucket stored %d values", stored)
	}
	set(t, b, "device.good", `{"interval":"5s","interval":"7s","more":{"x":[1]}}`)
	r := until(t, got, "all are read", func(r *Rules) bool { return r.Len() == 1 && len(r.Unreadable()) == stored })
	if d := r.Device("good", nil); d.Interval != 7*time.Second {
		t.Errorf("of a duplicate field the last value counts: got %v", d.Interval)
	}
	for _, u := range r.Unreadable() {
		if u.Reason == "" || strings.ContainsFunc(u.Reason, func(r rune) bool { return r < ' ' }) || len(u.Reason) > 500 {
			t.Errorf("%s: %q", u.Key, u.Reason)
		}
	}
	if n := log.Count("ignoring a malformed control entry"); n != min(stored, maxLines) {
		t.Errorf("%d lines for %d values", n, stored)
	}
}
