package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/cmd/plaspy-bridge/internal/clitest"
	"plaspy-bridge/publisher/natstest"
)

var proof = flag.Bool("proof", false, "take each permission of deploy/nats.conf away, one after the other; takes minutes")

// login is how the program logs in to a server with deploy/nats.conf.
type login struct {
	name string
	env  []string
	// spare are the permissions that the program does not need with this login:
	// the Reply-To of gateways, and those for another login.
	spare []string
}

var logins = []login{
	{"as the file says", []string{"NATS_INBOX_PREFIX=_INBOX_bridge", "NATS_QUERY_USER=query", "NATS_QUERY_PASSWORD=pass-of-QUERY"}, []string{
		"bridge publish _INBOX.>", "bridge publish _INBOX_gateway.>", "bridge publish _R_.>", "bridge publish $JS.API.STREAM.NAMES",
		"bridge subscribe _INBOX.>", "bridge subscribe plaspy.api.>", "bridge subscribe $SRV.>",
		"query publish _INBOX_subscriber.>", "query publish _INBOX_operator.>", "query publish _R_.>",
	}},
	{"one user, and the usual inboxes", nil, []string{
		"bridge publish _INBOX_gateway.>", "bridge publish _R_.>", "bridge publish $JS.API.STREAM.NAMES", "bridge subscribe _INBOX_bridge.>",
		"query publish _INBOX.>", "query publish _INBOX_subscriber.>", "query publish _INBOX_operator.>", "query publish _R_.>",
		"query subscribe plaspy.api.>", "query subscribe $SRV.>",
	}},
}

// late are the needs that this run does not show. Check tries them all the same.
var late = []string{
	// The events stream has lost its old messages, so that plaspy_last and plaspy_silent
	// are read, or it was deleted.
	"bridge publish $JS.API.CONSUMER.CREATE.KV_plaspy_last.>", "bridge publish $JS.API.CONSUMER.MSG.NEXT.KV_plaspy_last.*",
	"bridge publish $JS.API.CONSUMER.CREATE.KV_plaspy_silent.>", "bridge publish $JS.API.CONSUMER.MSG.NEXT.KV_plaspy_silent.*",
	"bridge publish $JS.API.DIRECT.GET.KV_plaspy_last",
	// A device is removed while its alert silent is raised.
	"bridge publish $KV.plaspy_silent.>",
	// A consumer is deleted before it would expire.
	"bridge publish $JS.API.CONSUMER.DELETE.KV_plaspy_last.*", "bridge publish $JS.API.CONSUMER.DELETE.KV_plaspy_silent.*",
	"bridge publish $JS.API.CONSUMER.DELETE.PLASPY_RESULTS.*",
	// The inbound stream permits no direct gets.
	"bridge publish $JS.API.STREAM.MSG.GET.PLASPY_INBOUND",
	// A watch receives more than its flow control permits.
	"bridge publish $JS.FC.KV_plaspy_control.>", "bridge publish $JS.FC.KV_plaspy_replicas.>",
	// Check reads the user's permissions with it.
	"bridge publish $SYS.REQ.USER.INFO",
}

// TestPermissionsOneByOne runs the program and `plaspy-bridge check` as the users of
// deploy/nats.conf, and again with each single permission taken away. Check has to
// report exactly the parts that then break. A permission that neither
// misses is not needed.
//
// Without -proof it takes every 16th permission.
func TestPermissionsOneByOne(t *testing.T) {
	if !*proof {
		t.Parallel()
	}
	for i, l := range logins {
		_, list := permitted(t, "")
		if len(list) < 50 {
			t.Fatalf("only %d permissions found", len(list))
		}
		if i > 0 { // the rest is the same for all
			list = slices.Concat(logins[0].spare, l.spare)
			slices.Sort(list)
			list = slices.Compact(list)
		}
		for n, taken := range append([]string{""}, list...) {
			if taken != "" && !*proof && n%16 != 3 {
				continue
			}
			o, _ := permitted(t, taken)
			t.Run(strings.TrimSuffix(l.name+": "+taken, ": "), func(t *testing.T) {
				t.Parallel()
				reported := strings.Join(checkWith(t, o, l), "; ")
				broken := runWith(t, o, l)
				spare := slices.Contains(l.spare, taken)
				switch {
				case taken == "" && reported+broken != "":
					t.Errorf("with every permission: check reports %q, and the bridge has trouble: %s", reported, broken)
				case broken != "" && reported == "":
					t.Errorf("check reports nothing, and the bridge has trouble: %s", broken)
				case spare && reported+broken != "":
					t.Errorf("it is listed as unneeded: check reports %q, and the bridge has trouble: %s", reported, broken)
				case taken != "" && !spare && reported == "":
					t.Error("check does not miss it: either a package does not list it as a need, or nats.conf has too much")
				case taken != "" && !spare && broken == "" && !slices.Contains(late, taken):
					t.Errorf("nothing breaks, and check reports %q", reported)
				}
			})
		}
	}
}

// permitted reads deploy/nats.conf and takes one permission away, which is written as
// in list.
func permitted(t *testing.T, taken string) (o *server.Options, list []string) {
	t.Helper()
	o, err := server.ProcessConfigFile("../../deploy/nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range o.Users {
		if u.Username != "bridge" && u.Username != "query" {
			continue
		}
		for verb, p := range map[string]*server.SubjectPermission{" publish ": u.Permissions.Publish, " subscribe ": u.Permissions.Subscribe} {
			for _, subject := range p.Allow {
				list = append(list, u.Username+verb+subject)
			}
			p.Allow = slices.DeleteFunc(p.Allow, func(subject string) bool { return u.Username+verb+subject == taken })
		}
	}
	slices.Sort(list)
	o.Host, o.Port, o.HTTPPort, o.MQTT = "127.0.0.1", server.RANDOM_PORT, 0, server.MQTTOpts{}
	o.NoSigs, o.NoLog = true, true
	return o, list
}

// permissionRig is a server with the file's users and a simulated API, and the
// program's environment for both.
type permissionRig struct {
	server *server.Server
	fleet  *sim.Server
	env    []string
	http   string // BRIDGE_HTTP_ADDR
}

func newPermissionRig(t *testing.T, o *server.Options, l login) permissionRig {
	t.Helper()
	s := natstest.Start(t, func(copied *server.Options) {
		*copied = *o
		copied.StoreDir, copied.AuthTimeout = t.TempDir(), time.Minute.Seconds()
	})
	fleet := sim.New(sim.Options{Devices: 3})
	addr := freeAddr(t)
	return permissionRig{s.Server, fleet, append(simulated(t, fleet, "PLASPY_RATE_LIMIT=0",
		"NATS_URL="+s.ClientURL(), "NATS_USER=bridge", "NATS_PASSWORD=pass-of-BRIDGE", "BRIDGE_HTTP_ADDR="+addr,
		"BRIDGE_POLL_INTERVAL=100ms", "BRIDGE_SCHEDULE=fixed", "BRIDGE_SILENT_AFTER=1s", "BRIDGE_DEVICES_REFRESH=1s", "BRIDGE_SHUTDOWN_TIMEOUT=5s", "BRIDGE_LOG_FORMAT=json",
	), l.env...), addr}
}

// checkWith returns the findings of check about permissions that are not ok.
func checkWith(t *testing.T, o *server.Options, l login) (reported []string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "check", "--json")
	cmd.Env = newPermissionRig(t, o, l).env
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run() // status 1 if something is wrong
	for d := json.NewDecoder(&out); ; {
		var f struct{ Level, What, Text, Do string }
		if err := d.Decode(&f); errors.Is(err, io.EOF) {
			return reported
		} else if err != nil {
			t.Fatalf("check: %v\n%s%s", err, &out, &errs)
		}
		if f.Level != "ok" && (f.What == "permissions" || strings.Contains(f.Do, "allow this user")) {
			reported = append(reported, f.Text+": "+f.Do)
		}
	}
}

// jetStream connects to a server until the end of the test.
func jetStream(t *testing.T, url string, opts ...nats.Option) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	conn, err := nats.Connect(url, append(opts, nats.Timeout(time.Minute))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn, jetstream.WithDefaultTimeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	return conn, js
}

// runWith runs the program until it has done everything once, and then again until it is
// ready, or until the server has refused something, and returns its trouble.
func runWith(t *testing.T, o *server.Options, l login) string {
	t.Helper()
	r := newPermissionRig(t, o, l)
	conn, js := jetStream(t, r.server.ClientURL(), nats.UserInfo("operator", "pass-of-OPERATOR"))
	w := work{ctx: t.Context(), conn: conn, js: js, root: "http://" + r.http}
	do := func() string {
		left := w.left()
		if left == "" {
			r.fleet.RemoveDevice("device0003")
			left = w.remembered("device0003")
		}
		return left
	}
	for _, left := range []func() string{do, w.unready} {
		if trouble := r.run(t, left); trouble != "" {
			return trouble
		}
	}
	return ""
}

// run runs the program until left returns "", and returns its trouble.
func (r *permissionRig) run(t *testing.T, left func() string) string {
	t.Helper()
	log := logFile(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "run")
	cmd.Env, cmd.Stdout, cmd.Stderr = r.env, log, log
	p := start(t, cmd, r.http)
	limit, tick, trouble := time.After(3*time.Minute), time.NewTicker(50*time.Millisecond), ""
	defer tick.Stop()
	for trouble == "" {
		still := left()
		if trouble = refused(t, log.Name()); trouble != "" || still == "" {
			break
		}
		select {
		case <-tick.C:
		case <-limit:
			trouble = "not done: " + still
		}
	}
	// A program without its permissions may exit with an error.
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := <-p.done; err != nil {
		t.Logf("the program ended: %v", err)
	}
	return cmp.Or(trouble, refused(t, log.Name()))
}

// refused returns the line of a log in which the server refuses something, or "".
func refused(t *testing.T, log string) string {
	t.Helper()
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.Contains(strings.ToLower(line), "permissions violation") {
			return line
		}
	}
	return ""
}

// work is the set of actions that the program has to complete once.
type work struct {
	ctx    context.Context
	conn   *nats.Conn
	js     jetstream.JetStream
	root   string // of the HTTP side
	handed bool
}

// left names an action that is not done yet, or returns "".
func (w *work) left() string {
	for _, stream := range []string{"PLASPY_EVENTS", "KV_plaspy_last", "KV_plaspy_replicas", "KV_plaspy_control", "KV_plaspy_silent"} {
		if w.messages(stream) == 0 && stream != "KV_plaspy_control" {
			return stream
		}
	}
	if !w.handed {
		if err := w.handIn(); err != nil {
			return err.Error()
		}
		w.handed = true
	}
	switch {
	case w.messages("PLASPY_RESULTS") < 4:
		return "results"
	case w.messages("PLASPY_DLQ") < 3:
		return "dead letters"
	}
	for _, subject := range []string{"plaspy.api.devices", "plaspy.api.why.device0001", "$SRV.PING.plaspy"} {
		if _, err := w.conn.Request(subject, nil, 2*time.Second); err != nil {
			return subject
		}
	}
	if err := w.letters(); err != nil {
		return err.Error()
	}
	return ""
}

// letters reads the dead letters of the live view. The answer takes long if the server
// refuses the reading.
func (w *work) letters() error {
	ctx, cancel := context.WithTimeout(w.ctx, time.Second)
	defer cancel()
	body, err := clitest.Fetch(ctx, w.root+"/view/letters")
	if err == nil && !strings.Contains(body, `"device":"device0002"`) {
		err = fmt.Errorf("the live view's dead letters: %s", body)
	}
	return err
}

// unready returns the program's reasons not to be ready, or "".
func (w *work) unready() string {
	body, err := clitest.Fetch(w.ctx, w.root+"/readyz")
	switch {
	case err != nil:
		return err.Error()
	case !strings.Contains(body, `"ready": true`):
		return body
	}
	return ""
}

// remembered names a place that still has a removed device, or returns "".
func (w *work) remembered(device string) string {
	for _, bucket := range []string{"plaspy_last", "plaspy_silent"} {
		kv, err := w.js.KeyValue(w.ctx, bucket)
		if err != nil {
			return err.Error()
		}
		if _, err := kv.Get(w.ctx, device); !errors.Is(err, jetstream.ErrKeyNotFound) {
			return "the key of a removed device in " + bucket
		}
	}
	return ""
}

// messages is the number of messages that a stream has had.
func (w *work) messages(stream string) uint64 {
	st, err := w.js.Stream(w.ctx, stream)
	if err != nil {
		return 0
	}
	return st.CachedInfo().State.LastSeq
}

// handIn publishes messages to post, of which two become dead letters, and a setting
// of live control.
func (w *work) handIn() error {
	for subject, body := range map[string]string{
		"location.device0001": `{"dateTime":"2026-01-02T03:04:05Z","latitude":4.7,"longitude":-74.1}`,
		"alert.device0001":    `{"alertName":"SOS","dateTime":"2026-01-02T03:04:05Z"}`,
		"location.device0002": "{", "alert.device0002": "{", "other": "{}",
	} {
		if _, err := w.js.Publish(w.ctx, "plaspy.in."+subject, []byte(body)); err != nil {
			return fmt.Errorf("hand in %s: %w", subject, err)
		}
	}
	if _, err := w.js.Publish(w.ctx, "$KV.plaspy_control.device.device0001", []byte(`{"interval":"200ms"}`)); err != nil {
		return fmt.Errorf("control: %w", err)
	}
	return nil
}
