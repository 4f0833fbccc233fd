package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/cmd/plaspy-bridge/internal/clitest"
)

// TestEmbeddedServerWithNATSConf runs check and the bridge with deploy/nats.conf as the
// configuration of the embedded server, as the file says. Neither complains, and a
// subscriber receives an event.
func TestEmbeddedServerWithNATSConf(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../deploy/nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	listen := map[string]string{}
	for _, line := range []string{"listen: 0.0.0.0:4222", "http: 127.0.0.1:8222", "  listen: 0.0.0.0:1883"} {
		addr := freeAddr(t)
		name, _, _ := strings.Cut(line, ":")
		if !bytes.Contains(text, []byte("\n"+line)) {
			t.Fatalf("no line %q in the file", line)
		}
		listen[line] = addr
		text = bytes.Replace(text, []byte("\n"+line), []byte("\n"+name+": "+addr), 1)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "nats.conf")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	addr := freeAddr(t)
	env := simulated(t, sim.New(sim.Options{Devices: 2}),
		"BRIDGE_EMBEDDED_CONFIG="+file, "NATS_USER=bridge", "NATS_PASSWORD=pass-of-BRIDGE", "NATS_INBOX_PREFIX=_INBOX_bridge",
		"NATS_QUERY_USER=query", "NATS_QUERY_PASSWORD=pass-of-QUERY", "BRIDGE_HTTP_ADDR="+addr, "BRIDGE_LOG_FORMAT=json")
	for _, user := range users {
		env = append(env, user+"_PASSWORD=pass-of-"+user)
	}
	command := func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
		cmd.Dir, cmd.Env = dir, env
		return cmd
	}
	out, err := command("check").CombinedOutput()
	for line := range strings.Lines(string(out)) {
		// The embedded server runs on this machine, and its power may fail.
		if !strings.HasPrefix(line, "ok ") && !strings.HasPrefix(line, "warn power failure:") {
			t.Errorf("check says: %s", line)
		}
	}
	if err != nil {
		t.Errorf("check: %v", err)
	}
	log := logFile(t)
	cmd := command("run")
	cmd.Stdout, cmd.Stderr = log, log
	p := start(t, cmd, addr)
	t.Cleanup(func() {
		if text, err := os.ReadFile(log.Name()); t.Failed() && err == nil {
			t.Logf("%s", text)
		}
	})
	p.ready()
	conn, err := nats.Connect("nats://"+listen["listen: 0.0.0.0:4222"], nats.UserInfo("subscriber", "pass-of-SUBSCRIBER"), nats.Timeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	p.await("an event", func() bool {
		m, err := conn.Request("$JS.API.DIRECT.GET.PLASPY_EVENTS.plaspy.location.device0001", nil, 5*time.Second)
		return err == nil && strings.Contains(string(m.Data), "device0001")
	})
	if _, err := conn.Request("plaspy.api.devices", nil, time.Minute); err != nil {
		t.Errorf("query service: %v", err)
	}
	p.await("nothing to complain about", func() bool {
		body, err := clitest.Fetch(t.Context(), p.http+"/readyz")
		return err == nil && strings.Contains(body, `"ready": true`) && !strings.Contains(body, `"degraded": true`)
	})
	if status, _ := p.signal(syscall.SIGTERM); status != 0 {
		t.Errorf("status %d", status)
	}
	written, err := os.ReadFile(log.Name())
	if err != nil {
		t.Fatal(err)
	}
	// On a busy machine a part may take seconds to become ready, or a renewal of the lease.
	late := regexp.MustCompile(`"msg":"(part is not ready|part is degraded|could not renew the lease, pausing work)"`)
	for line := range strings.Lines(string(written)) {
		if late.MatchString(line) {
			continue
		}
		if strings.Contains(line, `"level":"WARN"`) || strings.Contains(line, `"level":"ERROR"`) {
			t.Errorf("the log says: %s", line)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "data")); errors.Is(err, os.ErrNotExist) {
		t.Error("the store is not below the working folder, as the file says")
	}
}
