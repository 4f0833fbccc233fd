package operate

import (
	"context"
	"strings"
	"testing"
	"time"

	"plaspy-bridge/cmd/plaspy-bridge/internal/clitest"
	"plaspy-bridge/publisher/natstest"
)

var program = clitest.With(ControlCommand, ForgetCommand)

func TestMain(m *testing.M) { program.Main(m) }

func TestControl(t *testing.T) {
	srv := natstest.Start(t, natstest.Listen)
	js := natstest.JetStream(t, srv.Client(t))
	clitest.ClearEnv(t, "NATS_URL", srv.ClientURL())
	for _, tt := range []struct {
		args           []string
		status         int
		stdout, stderr string
	}{
		{[]string{"list"}, 0, "no entries\n", ""},
		{[]string{"clear", "fleet"}, 0, "fleet: has no entry\n", ""},
		{[]string{"set", "device", "dev 1", "--interval", "5s", "--weight", "8"}, 0, "device dev 1: interval 5s, weight 8\n", ""},
		{[]string{"set", "group", "Reserve", "--pause", "--for", "1h"}, 0, "group Reserve: paused, until 2", ""},
		{[]string{"set", "device", "dev 2", "--pause=false"}, 0, "device dev 2: not paused\n", ""},
		{[]string{"set", "fleet", "--rate-limit", "300", "--log-level", "DEBUG", "--devices", "a*, b", "--devices-exclude", ""}, 0,
			`fleet: rate limit 300 a minute, log level debug, devices ["a*" "b"], devices excluded []`, ""},
		{[]string{"list"}, 0, "in force", ""},
		{[]string{"clear", "device", "dev 2"}, 0, "device dev 2: cleared\n", ""},
		{[]string{"clear", "device", "dev 2"}, 0, "device dev 2: has no entry\n", ""},

		{[]string{"set"}, 2, "", "expected device NAME|group NAME|fleet"},
		{[]string{"set", "device", "--pause"}, 2, "", "expected device NAME|group NAME|fleet"},
		{[]string{"set", "device", "", "--pause"}, 2, "", "it is empty"},
		{[]string{"set", "truck", "x", "--pause"}, 2, "", "none of device, group and fleet"},
		{[]string{"set", "fleet", "x", "--pause"}, 2, "", "fleet takes no name"},
		{[]string{"set", "fleet"}, 2, "", "nothing to set"},
		{[]string{"set", "fleet", "--for", "1h"}, 2, "", "nothing to set"},
		{[]string{"set", "fleet", "--pause", "--for", "-1h"}, 2, "", "--for must be positive"},
		{[]string{"set", "device", "x", "--rate-limit", "5"}, 2, "", "--rate-limit is for the fleet only"},
		{[]string{"set", "device", "x", "--interval", "0s"}, 2, "", "must be positive"},
		{[]string{"set", "device", "x", "--interval", "1ms"}, 2, "", "interval: expected a duration"},
		{[]string{"set", "device", "x", "--weight", "65"}, 2, "", "weight: expected a number, 0.1 to 64"},
		{[]string{"set", "device", "x", "--weight", "NaN"}, 2, "", "weight"},
		{[]string{"set", "fleet", "--log-level", "loud"}, 2, "", "--log-level: expected debug"},
		{[]string{"set", "fleet", "--devices", "["}, 2, "", "devices: expected a list"},
		{[]string{"clear"}, 2, "", "expected device NAME|group NAME|fleet"},
		{[]string{"list", "x"}, 2, "", "unknown"},
	} {
		status, stdout, stderr := program.Run(t, append([]string{"control"}, tt.args...)...)
		if status != tt.status || !strings.Contains(stdout, tt.stdout) || !strings.Contains(stderr, tt.stderr) {
			t.Errorf("%q: status %d, %q, %q; want %d, %q, %q", tt.args, status, stdout, stderr, tt.status, tt.stdout, tt.stderr)
		}
	}
	kv, err := js.KeyValue(t.Context(), "plaspy_control")
	if err != nil {
		t.Fatal(err)
	}
	if e, err := kv.Get(t.Context(), "device.dev=201"); err != nil || !strings.Contains(string(e.Value()), `"interval":"5s","weight":8,"set_by":"`) {
		t.Errorf("stored: %v, %v", e, err)
	}
	for key, value := range map[string]string{"device.bad": "garbage\x1b[31m", "device.old": `{"paused":true,"until":"2020-01-01T00:00:00Z","more":1}`} {
		if _, err := kv.PutString(t.Context(), key, value); err != nil {
			t.Fatal(err)
		}
	}
	status, stdout, stderr := program.Run(t, "control", "list")
	if status != 0 {
		t.Fatal(status, stderr)
	}
	for _, want := range []string{"device bad     unreadable  the value is not a JSON object", "device old     ended", "ignored: more", "group Reserve  in force    paused"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("list lacks %q:\n%s", want, stdout)
		}
	}
	if strings.Contains(stdout, "polled less often") {
		t.Errorf("list reports that the budget is too small:\n%s", stdout)
	}
	if strings.ContainsRune(stdout, 0x1b) {
		t.Error("list prints control characters of the bucket")
	}
	if status, _, stderr = program.Run(t, "control", "set", "device", "dev 3", "--interval", "150ms"); status != 0 {
		t.Fatal(status, stderr)
	}
	if status, stdout, _ = program.Run(t, "control", "list"); status != 0 || !strings.Contains(stdout,
		"The intervals of these devices need 412 polls a minute. The request budget permits 300 requests, so they are polled less often.") {
		t.Errorf("status %d, list does not say that the budget is too small:\n%s", status, stdout)
	}
	// The name of a device that is no UTF-8, and a value that is no entry, can be cleared.
	if status, _, stderr = program.Run(t, "control", "clear", "device", "bad"); status != 0 {
		t.Error(stderr)
	}
}

func TestControlWithoutServer(t *testing.T) {
	srv := natstest.Start(t, natstest.Listen)
	clitest.ClearEnv(t, "NATS_URL", srv.ClientURL())
	srv.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond) // waited out
	defer cancel()
	if status, _, stderr := program.RunContext(ctx, "control", "list"); status != 1 || !strings.Contains(stderr, "not connected to NATS") {
		t.Errorf("status %d, %q", status, stderr)
	}
}
