package examples_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"plaspy-bridge/deploy/examples/plaspy"
	"plaspy-bridge/publisher/natstest"
)

// moves shows one alert after another until the test ends, so that a subscriber
// hears one however long it took to start.
func (r *rig) moves(t *testing.T) {
	t.Helper()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for step := 1; ; step++ {
			if step%2 == 1 {
				r.show(step, `,"alerts":["SpeedLimit"],"alertTexts":["Speeding"],"hasCriticalAlert":true`)
			} else {
				r.show(step, `,"alerts":[]`)
			}
			select {
			case <-stop:
				return
			case <-time.After(250 * time.Millisecond):
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-stopped
	})
}

// TestGo builds the programs once, and runs them.
func TestGo(t *testing.T) {
	built := build(t)
	t.Run("programs", func(t *testing.T) { programs(t, built) })
	t.Run("traced", func(t *testing.T) { traced(t, built) })
}

func programs(t *testing.T, built func(*testing.T) string) {
	r := newRig(t)
	var bin string
	run := func(t *testing.T, user, name string, args ...string) *process {
		t.Helper()
		p := r.start(user, ".", filepath.Join(bin, name), args...)
		p.t = t
		return p
	}
	r.waitForEvent(t)
	r.moves(t)
	bin = built(t)
	t.Run("latest", func(t *testing.T) {
		t.Parallel()
		p := run(t, "subscriber", "latest")
		p.says("dev 1", "-74.1")
		p.says("dev 1", "-74.1") // a change
		p = run(t, "subscriber", "latest", "-once")
		p.says("dev 1")
		p.ends()
	})
	t.Run("replay", func(t *testing.T) {
		t.Parallel()
		p := run(t, "subscriber", "replay", "-since", "1h", "-device", "dev=201")
		p.says(`"deviceId":"dev 1"`, `"latitude":4.70`)
		p.ends()
		p = run(t, "subscriber", "replay", "-device", "nobody")
		p.ends()
	})
	t.Run("durable", func(t *testing.T) {
		t.Parallel()
		for range 2 { // the second one goes on after the first
			p := run(t, "subscriber", "durable", "-n", "2")
			p.says("dev 1")
			p.ends()
		}
	})
	t.Run("workers", func(t *testing.T) {
		t.Parallel()
		p := run(t, "operator", "workers", "-create")
		p.ends()
		for _, member := range []string{"w1", "w2"} { // the second one goes on after the first
			p := run(t, "operator", "workers", "-member", member, "-n", "2")
			p.says("dev 1", "-74.1")
			p.ends()
		}
		p = run(t, "operator", "workers", "-drop", "w3")
		p.ends()
	})
	t.Run("alerts", func(t *testing.T) {
		t.Parallel()
		p := run(t, "subscriber", "alerts", "-alert", "SpeedLimit", "-n", "2")
		p.says("dev 1", "SpeedLimit")
		p.ends()
	})
	t.Run("gateway", func(t *testing.T) {
		t.Parallel()
		p := run(t, "gateway", "gateway", "dev 1", "4.5", "-74.25")
		p.says(`"deviceId":"dev 1"`, `"kind":"location"`, `"status":200`)
		p.ends()
		if posts := r.api.Posts("dev 1"); len(posts) != 1 || !strings.Contains(posts[0].Body, "-74.25") {
			t.Errorf("posts %+v", posts)
		}
		p = run(t, "gateway", "gateway", "dev 1", "494.5", "-74.25")
		p.says("no: invalid: latitude")
		p.says(`"posted":false`, `"deadLetter":1`)
		for range p.lines { // until it ends
		}
		if exit, ok := errors.AsType[*exec.ExitError](<-p.done); !ok || exit.ExitCode() != 1 {
			t.Errorf("a refusal ends with %v, want status 1", exit)
		}
	})
}

// waitForEvent returns when the stream has the device's location, and with it
// everything that a client needs.
func (r *rig) waitForEvent(t *testing.T) {
	t.Helper()
	nc, err := nats.Connect(r.url, nats.UserInfo("subscriber", "pass-of-SUBSCRIBER"), nats.Timeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := nc.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	natstest.Eventually(t, "the first event", func() bool {
		// The last of the chain: the server copies it there out of the stream.
		bucket, err := js.KeyValue("plaspy_last")
		if err != nil {
			return false
		}
		_, err = bucket.Get("dev=201")
		return err == nil
	})
}

func TestJavaScript(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed")
	}
	if _, err := os.Stat("js/node_modules/@nats-io/kv"); err != nil {
		t.Skip("the NATS client is not installed: npm ci in deploy/examples/js")
	}
	r := newRig(t)
	r.waitForEvent(t)
	r.moves(t)
	for _, tt := range []struct {
		name, user string
		args       []string
		says       []string
		ends       bool
	}{
		{"latest", "subscriber", []string{"subscriber.mjs", "latest"}, []string{"dev 1", "-74.1"}, false},
		{"replay", "subscriber", []string{"subscriber.mjs", "replay", "3600"}, []string{"dev 1", "-74.1"}, true},
		{"queue", "subscriber", []string{"subscriber.mjs", "queue", "dashboards"}, []string{"dev 1", "-74.1"}, false},
		{"alerts", "subscriber", []string{"subscriber.mjs", "alerts"}, []string{"dev 1", "SpeedLimit"}, false},
		{"durable", "subscriber", []string{"subscriber.mjs", "durable", "reports", "3"}, []string{"dev 1", "-74.1"}, true},
		{"gateway", "gateway", []string{"gateway.mjs", "dev 1", "4.5", "-74.25"}, []string{`"deviceId":"dev 1"`, `"status":200`}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := r.start(tt.user, "js", node, tt.args...)
			p.t = t
			p.says(tt.says...)
			if tt.ends {
				p.ends()
			}
		})
	}
}

// TestPython checks that the program compiles and encodes ids as the bridge does.
// Running it needs nats-py, which not every machine can install.
func TestPython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not installed")
	}
	const program = `import py_compile, sys
py_compile.compile("durable.py", cfile=sys.argv[1], doraise=True)
import durable
for id in ("dev 1", "a.b*c>", "\U0001F69A", "=20", "A-b_9"):
    token = durable.encode_device(id)
    assert durable.decode_device(token) == id, id
    print(token)
durable.handle("plaspy.location.d", "id1", b'{"deviceId":"d","location":{"latitude":1,"longitude":2}}')`
	cmd := exec.CommandContext(t.Context(), python, "-B", "-c", program, filepath.Join(t.TempDir(), "durable.pyc"))
	cmd.Dir = "python"
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := ""
	for _, id := range []string{"dev 1", "a.b*c>", "\U0001F69A", "=20", "A-b_9"} {
		want += plaspy.EncodeDevice(id) + "\n"
	}
	if got := string(out); got != want+"id1 d is at 1 2\n" {
		t.Errorf("got %q, want %q", got, want)
	}
}

// readme reports whether the README shows a command, arguments and all.
func readme(t *testing.T, command string) {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "\n"+command) {
		t.Errorf("README does not show %s", command)
	}
}

func TestCLI(t *testing.T) {
	commands := []struct{ name, user, command, says string }{
		{"where the devices are", "subscriber", "nats kv watch plaspy_last", "dev=201"},
		{"the last hour", "subscriber", "nats sub --stream PLASPY_EVENTS --since 1h 'plaspy.>'", `"deviceId":"dev 1"`},
		{"the live stream, shared", "subscriber", "nats sub 'plaspy.location.*' --queue dashboards", `"deviceId":"dev 1"`},
		{"alerts", "subscriber", "nats sub 'plaspy.alert.*.*'", `"alert":"SpeedLimit"`},
		{"one device", "subscriber", "nats kv get plaspy_last device0001 --raw", `"deviceId":"dev 1"`},
		{"ask", "subscriber", "nats req plaspy.api.last.device0001 ''", "lastLocation"},
		{"why", "subscriber", "nats req plaspy.api.why.device0001 ''", "decisions"},
		{"post a location", "gateway", `nats pub --jetstream plaspy.in.location.device0001 '{"dateTime":"2026-01-02T03:04:05Z","latitude":4.7,"longitude":-74.1}' -H Nats-Msg-Id:device0001-17`, "PLASPY_INBOUND"},
		{"post an alert", "gateway", `nats pub --jetstream plaspy.in.alert.device0001 '{"alertName":"SOSButton","dateTime":"2026-01-02T03:04:05Z"}'`, "PLASPY_INBOUND"},
	}
	for _, c := range commands {
		readme(t, c.command)
	}
	if _, err := exec.LookPath("nats"); err != nil {
		t.Skip("the nats CLI is not installed")
	}
	r := newRig(t)
	r.waitForEvent(t)
	r.moves(t)
	for _, c := range commands {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := r.start(c.user, ".", "sh", "-c", "exec "+strings.ReplaceAll(c.command, "device0001", "dev=201")+" 2>&1")
			p.t = t
			p.says(c.says)
		})
	}
}

//nolint:misspell // mosquitto is the name of the clients
func TestMQTT(t *testing.T) {
	const pub = `mosquitto_pub -u gateway -P ... -q 1 -t plaspy/in/location/device0001 -m '{"dateTime":"2026-01-02T03:04:05Z","latitude":4.7,"longitude":-74.1}'`
	const sub = `mosquitto_sub -u subscriber -P ... -t plaspy/alert/+/+`
	readme(t, pub)
	readme(t, sub)
	if _, err := exec.LookPath("mosquitto_sub"); err != nil {
		t.Skip("the mosquitto clients are not installed")
	}
	r := newRig(t)
	r.waitForEvent(t)
	r.moves(t)
	command := func(s, password string) string {
		s = strings.ReplaceAll(s, "device0001", "dev=201")
		return "exec " + strings.Replace(s, " -P ...", " -h 127.0.0.1 -p "+port(r.mqtt)+" -P "+password, 1)
	}
	t.Run("publish", func(t *testing.T) {
		t.Parallel()
		nc, err := nats.Connect(r.url, nats.UserInfo("subscriber", "pass-of-SUBSCRIBER"), nats.Timeout(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		results, err := nc.SubscribeSync("plaspy.result.location.dev=201")
		if err != nil {
			t.Fatal(err)
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
		p := r.start("gateway", ".", "sh", "-c", command(pub, "pass-of-GATEWAY"))
		p.t = t
		p.ends()
		if _, err := results.NextMsg(time.Minute); err != nil {
			t.Errorf("the published messages are not posted: %v", err)
		}
	})
	t.Run("subscribe", func(t *testing.T) {
		t.Parallel()
		p := r.start("subscriber", ".", "sh", "-c", command(sub, "pass-of-SUBSCRIBER"))
		p.t = t
		p.says(`"alert":"SpeedLimit"`)
	})
}
