package examples_test

import (
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/sim/fault"
	"plaspy-bridge/publisher/natstest"
)

const (
	operations  = "../docs/operations.md"
	subscribers = "../docs/subscribers.md"
)

// elsewhere has the commands of the two pages that TestPages does not run, and the reason.
//
//nolint:misspell // mosquitto is what the clients are called
var elsewhere = map[string]string{
	"systemd-run":         "TestCheckUnderSystemd in deploy reads it",
	"docker compose exec": "needs containers",
	"examples/workers":    "TestGo runs it",
	"mosquitto_sub":       "TestRetainer runs it",
}

// fenced returns the blocks of a page in one language, without their indentation.
func fenced(t *testing.T, page, language string) []string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, m := range regexp.MustCompile("(?ms)^( *)```"+language+"\n(.*?)^ *```$").FindAllStringSubmatch(string(text), -1) {
		blocks = append(blocks, strings.ReplaceAll("\n"+m[2], "\n"+m[1], "\n")[1:])
	}
	return blocks
}

// block returns the one block that holds a text.
func block(t *testing.T, page, language, text string) string {
	t.Helper()
	found := slices.DeleteFunc(fenced(t, page, language), func(b string) bool { return !strings.Contains(b, text) })
	if len(found) != 1 {
		t.Fatalf("%s has %d blocks of %s with %s, want 1", page, len(found), language, text)
	}
	return found[0]
}

// commands splits a block into its commands.
func commands(block string) []string {
	return strings.Split(strings.TrimSpace(strings.ReplaceAll(block, "\\\n", " ")), "\n")
}

// terminal runs commands as an operator types them, with the plaspy-bridge of this commit.
type terminal struct {
	url, user string // of the server; a server without users has none
	bin, dir  string
}

// run returns the output of a script that ends well. The three dots are the password.
func (c terminal) run(t *testing.T, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	password := "pass-of-" + strings.ToUpper(c.user)
	cmd := exec.CommandContext(ctx, "sh", "-euc", strings.ReplaceAll(script, " ... ", " "+password+" "))
	cmd.Dir = c.dir
	for _, env := range os.Environ() {
		if !strings.HasPrefix(env, "PLASPY_") && !strings.HasPrefix(env, "BRIDGE_") && !strings.HasPrefix(env, "NATS_") && !strings.HasPrefix(env, "OTEL_") {
			cmd.Env = append(cmd.Env, env)
		}
	}
	cmd.Env = append(cmd.Env, "NATS_URL="+c.url, "NATS_TIMEOUT=1m", "HOME="+c.dir, "PATH="+c.bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
	if c.user != "" {
		cmd.Env = append(cmd.Env, "NATS_USER="+c.user, "NATS_PASSWORD="+password)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// says runs a script whose output has to hold a text.
func (c terminal) says(t *testing.T, script, text string) {
	t.Helper()
	if out := c.run(t, script); !strings.Contains(out, text) {
		t.Errorf("%s prints no %q:\n%s", script, text, out)
	}
}

// jetStream connects to the server of the terminal, as its user.
func (c terminal) jetStream(t *testing.T) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect(c.url, nats.UserInfo(c.user, "pass-of-"+strings.ToUpper(c.user)), nats.Timeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return natstest.JetStream(t, nc)
}

// forSubscribers is nats.conf with more users in the account SUBSCRIBERS, with pairs of texts there
// replaced, and with leaf nodes.
func forSubscribers(t *testing.T, users string, replaced ...string) string {
	t.Helper()
	conf, err := os.ReadFile("../nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	before, after, ok := strings.Cut(string(conf), "  SUBSCRIBERS {")
	if !ok {
		t.Fatal("nats.conf has no account SUBSCRIBERS")
	}
	for edit := range slices.Chunk(append(replaced, "users: [", "users: [\n"+users+"\n"), 2) {
		after = strings.Replace(after, edit[0], edit[1], 1)
	}
	name := filepath.Join(t.TempDir(), "nats.conf")
	if err := os.WriteFile(name, []byte(before+"  SUBSCRIBERS {"+after+"\nleafnodes { listen: 0.0.0.0:7422 }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestPages runs the commands of operations.md and subscribers.md.
func TestPages(t *testing.T) {
	run := []string{
		"account backup", "nats stream edit", "dlq replay", "NATS_PASSWORD=... plaspy-bridge", "control set", // operations.md
		"nats consumer report", `'{"name":"PLASPY_EVENTS"}'`, `"external"`, // subscribers.md
	}
	for _, b := range slices.Concat(fenced(t, operations, "sh"), fenced(t, subscribers, "sh")) {
		known := func(text string) bool { return strings.Contains(b, text) }
		if left := slices.ContainsFunc(slices.Collect(maps.Keys(elsewhere)), known); left == slices.ContainsFunc(run, known) {
			t.Errorf("neither run nor left out, or both:\n%s", b)
		}
	}
	if _, err := exec.LookPath("nats"); err != nil {
		t.Skip("the nats CLI is not installed")
	}
	bin := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-ldflags", "-s -w", "-o", bin+string(filepath.Separator), "plaspy-bridge/cmd/plaspy-bridge").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	r := newRigOf(t, forSubscribers(t, block(t, subscribers, "hcl", "ARCHIVE_PASSWORD")))
	r.waitForEvent(t)
	operator := terminal{r.url, "operator", bin, t.TempDir()}
	t.Run("dead letters", func(t *testing.T) { deadLetters(t, r, operator) })
	t.Run("control", func(t *testing.T) { liveControl(t, operator) })
	t.Run("consumers", func(t *testing.T) {
		operator.run(t, "nats consumer add PLASPY_EVENTS reports --defaults --pull")
		c := operator
		c.user = "subscriber"
		c.says(t, block(t, subscribers, "sh", "consumer report"), "reports")
		c.says(t, block(t, subscribers, "sh", "consumer report"), "Unprocessed")
	})
	t.Run("copies", func(t *testing.T) { copies(t, r, operator) })
	t.Run("backup", func(t *testing.T) { backup(t, operator) })
}

// deadLetters has the API refuse a message, and accept it later.
func deadLetters(t *testing.T, r *rig, c terminal) {
	gateway := c
	gateway.user = "gateway"
	refuse := r.api.Fault(fault.Rule{Kind: fault.Status, Status: 404, Endpoint: "locations", Device: "dev 1"})
	gateway.run(t, `nats req plaspy.in.location.dev=201 '{"dateTime":"2026-01-02T03:04:05Z","latitude":4.7,"longitude":-74.1}'`)
	box, err := c.jetStream(t).Stream(t.Context(), "PLASPY_DLQ")
	if err != nil {
		t.Fatal(err)
	}
	natstest.Eventually(t, "the dead letter", func() bool {
		info, err := box.Info(t.Context())
		return err == nil && info.State.Msgs == 1
	})
	refuse()
	page := commands(block(t, operations, "sh", "dlq replay"))
	outputs := []string{"dev 1", "404", "1 would be replayed", "posted with status 200", "0 purged"}
	if len(page) != len(outputs) {
		t.Fatalf("%d commands, want %d", len(page), len(outputs))
	}
	anywhere := strings.Replace(block(t, operations, "sh", "NATS_USER=operator NATS_PASSWORD=... plaspy-bridge"), "nats://127.0.0.1:4222", c.url, 1)
	for i, command := range page {
		c.says(t, command, outputs[i])
		if i == 0 {
			c.says(t, strings.Replace(anywhere, "=... ", "=pass-of-OPERATOR ", 1), "dev 1")
		}
	}
}

// liveControl sets entries and lists them.
func liveControl(t *testing.T, c terminal) {
	for _, command := range commands(block(t, operations, "sh", "control set")) {
		c.run(t, command)
	}
	out := c.run(t, "plaspy-bridge control list")
	for _, entry := range []string{"device truck-7", "group Reserve", "fleet", "dispatch"} {
		if !strings.Contains(out, entry) {
			t.Errorf("control list shows no %q:\n%s", entry, out)
		}
	}
}

// copies copies the events within the account, to the account of the subscribers and to a leaf node.
func copies(t *testing.T, r *rig, operator terminal) {
	archive := operator
	archive.user = "archive"
	name := filepath.Join(t.TempDir(), "edge.conf")
	conf := strings.Replace(block(t, subscribers, "hcl", "nats-leaf"), "edge:PASSWORD@nats.example.com:7422", "edge:pass-of-EDGE@127.0.0.1:"+port(r.leaf), 1)
	if err := os.WriteFile(name, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	edge := terminal{url: startServer(t, natsConf(t, name)), bin: operator.bin, dir: operator.dir}
	external := block(t, subscribers, "sh", `"external"`)
	for _, copied := range []struct {
		at     terminal
		script string
	}{{operator, block(t, subscribers, "sh", `'{"name":"PLASPY_EVENTS"}'`)}, {archive, external}, {edge, external}} {
		copied.at.says(t, copied.script, "PLASPY_EVENTS")
		js := copied.at.jetStream(t)
		natstest.Eventually(t, "a copied event", func() bool {
			s, err := js.Stream(t.Context(), "EVENTS_COPY")
			if err != nil {
				return false
			}
			m, err := s.GetLastMsgForSubject(t.Context(), "plaspy.location.dev=201")
			return err == nil && strings.HasPrefix(m.Header.Get("Nats-Stream-Source"), "PLASPY_EVENTS")
		})
	}
}

// backup restores a backup into a server with the same accounts.
func backup(t *testing.T, from terminal) {
	script := commands(block(t, operations, "sh", "account backup"))
	if len(script) != 2 {
		t.Fatalf("%q, want a backup and a restore", script)
	}
	from.run(t, script[0])
	to := from
	to.url = startServer(t, natsConf(t, "../nats.conf"))
	to.run(t, script[1])
	js := to.jetStream(t)
	if _, err := js.Consumer(t.Context(), "PLASPY_EVENTS", "reports"); err != nil {
		t.Errorf("durable consumer: %v", err)
	}
	for _, stream := range []string{"PLASPY_EVENTS", "KV_plaspy_last", "KV_plaspy_control"} {
		if s, err := js.Stream(t.Context(), stream); err != nil || s.CachedInfo().State.Msgs == 0 {
			t.Errorf("%s is not restored: %v", stream, err)
		}
	}
	// One server can have one replica only, so the streams stay as they are.
	edit := strings.Replace(block(t, operations, "sh", "nats stream edit"), "--replicas 3", "--replicas 1", 1)
	if out := to.run(t, edit); strings.Count(out, "No difference") != 4 {
		t.Errorf("it compares other streams than four:\n%s", out)
	}
}

// TestRetainer runs the commands that republish locations as retained messages, with the users that
// the page adds to nats.conf.
//
//nolint:misspell // mosquitto is what the clients are called
func TestRetainer(t *testing.T) {
	if _, err := exec.LookPath("mosquitto_sub"); err != nil {
		t.Skip("the mosquitto clients are not installed")
	}
	r := newRigOf(t, forSubscribers(t, block(t, subscribers, "hcl", "user: retainer"), `"plaspy.location", `, `"plaspy.location", "last", "last.>", `))
	r.waitForEvent(t)
	r.moves(t)
	page := block(t, subscribers, "sh", "mosquitto_pub")
	page = strings.ReplaceAll(page, "-P ...", "-h 127.0.0.1 -p "+port(r.mqtt)+" -P ...")
	republish, read, ok := strings.Cut(page, "\ndone\n")
	if !ok {
		t.Fatalf("no loop in\n%s", page)
	}
	// It ends after one location, so that the reader gets a retained one.
	republish = strings.Replace(republish, "mosquitto_sub", "mosquitto_sub -C 1 -W 60", 1)
	r.start("retainer", ".", "sh", "-c", strings.ReplaceAll(republish, "-P ...", "-P pass-of-RETAINER")+"\ndone").ends()
	p := r.start("subscriber", ".", "sh", "-c", "exec "+strings.ReplaceAll(read, "-P ...", "-P pass-of-SUBSCRIBER -v"))
	p.says("last/dev=201", `"deviceId":"dev 1"`)
}
