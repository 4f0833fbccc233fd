package demo

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"plaspy-bridge/bridge/config"
	"plaspy-bridge/cmd/plaspy-bridge/internal/clitest"
	"plaspy-bridge/publisher"
)

var program = clitest.With(func() *cobra.Command {
	return Command(func() (version, revision string) { return "test", "test" })
})

func TestMain(m *testing.M) { program.Main(m) }

// demoEnv gives the demo ports and a folder of its own.
func demoEnv(t *testing.T, env ...string) (tmp string) {
	t.Helper()
	tmp = t.TempDir()
	clitest.ClearEnv(t, append([]string{"TMPDIR", tmp, "BRIDGE_EMBEDDED_ADDR", "127.0.0.1:0", "BRIDGE_HTTP_ADDR", "127.0.0.1:0"}, env...)...)
	return tmp
}

func leftovers(t *testing.T, tmp string) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(tmp, "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("the demo left %v, %v", left, err)
	}
}

// TestDemo runs the demo as a person would see it, with an account and a server
// in the environment that it must not use.
func TestDemo(t *testing.T) {
	t.Parallel()
	tmp := t.TempDir()
	want := []string{
		`^plaspy-bridge demo: 5 simulated vehicles, all in this process`,
		`  plaspy\.location\.<device> +a new or changed last location\n`,
		`\n  nats sub -s nats://127\.0\.0\.1:\d+ 'plaspy\.>'\n`,
		`\n  curl -s http://127\.0\.0\.1:\d+/readyz\n`,
		`live view with a map:\n  http://127\.0\.0\.1:\d+/\n`,
		`\n[0-9:.]{10}  plaspy\.device\.device0001 +device added\n`,
		`\n[0-9:.]{10}  plaspy\.location\.device0001 +\S+ 1 +\d+ km/h [NESW]+ +4\.\d{5},-7\d\.\d{5}\n`,
		`\n[0-9:.]{10}  plaspy\.in\.location\.gateway-1 +received, to be posted to the API\n`,
		`\n[0-9:.]{10}  plaspy\.result\.location\.gateway-1 +posted to the API, which answered 200\n`,
		`\n[0-9:.]{10}  plaspy\.location\.gateway-1 +Boat behind MQTT +64 km/h`,
	}
	missing := func(shown string) []string {
		return slices.DeleteFunc(slices.Clone(want), func(w string) bool { return regexp.MustCompile(w).MatchString(shown) })
	}
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	out := &watched{until: func(shown string) bool { return len(missing(shown)) == 0 }, done: interrupt}
	status, stderr := clitest.ProcessTo(ctx, t, out, []string{
		"TMPDIR=" + tmp, "BRIDGE_EMBEDDED_ADDR=127.0.0.1:0", "BRIDGE_HTTP_ADDR=127.0.0.1:0",
		"PLASPY_API_KEY=s3cret", "PLASPY_BASE_URL=nonsense", "NATS_URL=nats://u:s3cret@192.0.2.1", "NATS_CREDS=/none", "BRIDGE_STREAM_REPLICAS=3", "BRIDGE_DATA_DIR=/none",
	}, "demo", "--devices=5", "--for=1m")
	stdout := out.text.String()
	if status != 0 {
		t.Errorf("status %d, want 0\n%s", status, stderr)
	}
	want = append(want, `\n\d+ messages of \d devices in \d+ s, \d+ shown, \d+ stored in the stream PLASPY_EVENTS\.\n$`)
	if lacks := missing(stdout); len(lacks) > 0 {
		t.Errorf("not shown: %q in:\n%s", lacks, stdout)
	}
	if !strings.Contains(stderr, "BRIDGE_DATA_DIR") || strings.Contains(stderr+stdout, "s3cret") {
		t.Errorf("logged %s", stderr)
	}
	leftovers(t, tmp)
}

// TestDemoInterrupted reads the addresses that the demo prints, uses them as
// another terminal would, and interrupts it.
func TestDemoInterrupted(t *testing.T) {
	tmp := demoEnv(t)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	said, stdout := io.Pipe()
	var stderr bytes.Buffer
	status := make(chan int, 1)
	go func() {
		status <- program(ctx, []string{"demo", "--devices=3"}, stdout, &stderr)
		_ = stdout.Close()
	}()
	intro := make([]byte, 4096)
	n, err := said.Read(intro)
	if err != nil {
		t.Fatal(err)
	}
	rest := make(chan string, 1)
	go func() {
		all, _ := io.ReadAll(said)
		rest <- string(all)
	}()
	found := regexp.MustCompile(`-s (nats://\S+)[^$]*?curl -s (http://\S+)`).FindStringSubmatch(string(intro[:n]))
	if found == nil {
		t.Fatalf("printed %s", intro[:n])
	}
	nc, err := nats.Connect(found[1], nats.Timeout(time.Minute), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	sub, err := nc.SubscribeSync("plaspy.location.*")
	if err != nil {
		t.Fatal(err)
	}
	m, err := sub.NextMsg(time.Minute)
	if err != nil {
		t.Fatalf("no event: %v", err)
	}
	if m.Header.Get(publisher.HeaderType) != publisher.TypeLocation {
		t.Errorf("received %v", m.Header)
	}
	ready(t, found[2])
	interrupt()
	if got := <-status; got != 0 {
		t.Errorf("status %d after an interrupt, want 0\n%s", got, &stderr)
	}
	if tail := <-rest; !regexp.MustCompile(`\n\d+ messages? of \d devices? in .* stored in the stream PLASPY_EVENTS\.\n$`).MatchString(tail) {
		t.Errorf("ended with %s", tail)
	}
	leftovers(t, tmp)
}

func ready(t *testing.T, url string) {
	t.Helper()
	if body, err := clitest.Fetch(t.Context(), url); err != nil || !strings.Contains(body, `"ready"`) {
		t.Errorf("readyz: %s, %v", body, err)
	}
}

// full fails every write after the first, as a pipe without a reader does.
type full struct{ writes int }

func (f *full) Write(p []byte) (int, error) {
	if f.writes++; f.writes > 1 {
		return 0, errors.New("broken pipe")
	}
	return len(p), nil
}

func TestDemoWithoutAReader(t *testing.T) {
	tmp := demoEnv(t)
	var stderr bytes.Buffer
	if status := program(t.Context(), []string{"demo", "--for=1m"}, &full{}, &stderr); status != 0 {
		t.Errorf("status %d, want 0\n%s", status, &stderr)
	}
	leftovers(t, tmp)
}

// watched collects the output and calls done once it has all the awaited parts.
type watched struct {
	text  bytes.Buffer
	until func(text string) bool
	done  func()
}

func (w *watched) Write(p []byte) (int, error) {
	n, err := w.text.Write(p)
	if w.until(w.text.String()) {
		w.done()
	}
	return n, err
}

// TestDemoPorts takes the default ports first, or finds them taken, which is the
// same to the demo.
func TestDemoPorts(t *testing.T) {
	tmp := t.TempDir()
	clitest.ClearEnv(t, "TMPDIR", tmp)
	for _, addr := range []string{"127.0.0.1:4222", "127.0.0.1:8080"} {
		if l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", addr); err == nil {
			defer l.Close()
		}
	}
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	stdout := watched{until: func(shown string) bool { return strings.Contains(shown, "device added") }, done: interrupt}
	var stderr bytes.Buffer
	if status := program(ctx, []string{"demo", "--for=2m"}, &stdout, &stderr); status != 0 {
		t.Errorf("status %d, want 0\n%s", status, &stderr)
	}
	for _, want := range []string{`NATS        nats://127\.0\.0\.1:\d+ \(127\.0\.0\.1:4222 is in use\)`, `HTTP        http://127\.0\.0\.1:\d+ \(127\.0\.0\.1:8080 is in use\)`} {
		if !regexp.MustCompile(want).MatchString(stdout.text.String()) {
			t.Errorf("not shown: %s\n%s", want, stdout.text.String())
		}
	}
	leftovers(t, tmp)
}

// TestDemoRefuses checks that the demo does not replace addresses that the user has set.
func TestDemoRefuses(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tests := []struct {
		name, variable, value string
		status                int
		stderr                string
	}{
		{"NATS port taken", "BRIDGE_EMBEDDED_ADDR", l.Addr().String(), 1, "cannot listen on"},
		{"HTTP port taken", "BRIDGE_HTTP_ADDR", l.Addr().String(), 1, "another program listens"},
		{"wrong setting", "BRIDGE_WORKERS", "0", 2, "BRIDGE_WORKERS is 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tmp := demoEnv(t, tt.variable, tt.value)
			var out bytes.Buffer
			if status := program(t.Context(), []string{"demo", "--for=1m"}, io.Discard, &out); status != tt.status || !strings.Contains(out.String(), tt.stderr) {
				t.Errorf("status %d, want %d\n%s", status, tt.status, &out)
			}
			leftovers(t, tmp)
		})
	}
}

func TestHeading(t *testing.T) {
	for course, want := range map[float64]string{0: "N ", 22: "N ", 23: "NE", 90: "E ", 315: "NW", 359: "N ", 360: "N "} {
		if got := heading(course); got != want {
			t.Errorf("heading(%g) = %s, want %s", course, got, want)
		}
	}
}

func TestViewOfResults(t *testing.T) {
	v := &view{subjects: "plaspy"}
	for body, want := range map[string]string{
		`{"posted":true,"status":200}`:                                       "posted to the API, which answered 200",
		`{"posted":false,"reason":"invalid: body: is empty","status":0}`:     "not posted: invalid: body: is empty",
		`{"posted":false,"reason":"status 404","status":404,"deadLetter":3}`: "not posted: status 404",
	} {
		if _, got := v.describe(&nats.Msg{Subject: "plaspy.result.location.a", Data: []byte(body)}); got != want {
			t.Errorf("result %s is shown as %q, want %q", body, got, want)
		}
	}
}

// TestViewKeepsUp shows a flood: few lines, the rest counted.
func TestViewKeepsUp(t *testing.T) {
	var out bytes.Buffer
	v := &view{out: &out, subjects: "plaspy", lines: map[string]int{}, recent: map[string]int{}, seen: map[string]bool{}, begun: time.Now(), recentFrom: time.Now()}
	now := time.Unix(1_000_000, 0)
	for range 1000 {
		v.show(&nats.Msg{Subject: "plaspy.location.a", Data: []byte(`{"deviceId":"a","name":"A"}`)}, now)
		v.show(&nats.Msg{Subject: "plaspy.api.devices"}, now)
	}
	v.show(&nats.Msg{Subject: "plaspy.alert.a.SOSButton", Data: []byte(`{"deviceId":"a","name":"A","alert":"SOSButton","state":"raised","critical":true,"texts":["SOS"]}`)}, now)
	v.summary(now.Add(10 * time.Second))
	got := out.String()
	if n := strings.Count(got, "\n"); n != linesPerSecond+2 || v.count != 1001 {
		t.Errorf("%d lines of %d messages:\n%s", n, v.count, got)
	}
	if !strings.Contains(got, "ALERT raised SOS\n") || !strings.Contains(got, "1000 locations, 1 alert (") || !strings.Contains(got, "992 not shown)   1 device so far") {
		t.Errorf("shown:\n%s", got)
	}
}

// TestWarningsOfTheDemo: the demo drops warnings about variables that it ignores, or whose
// effect does not depend on others as it does for run.
func TestWarningsOfTheDemo(t *testing.T) {
	warnings := []config.Warning{
		{Variable: "BRIDGE_WEIGHTS", Problem: "odd"}, {Variable: "PLASPY_RATE_LIMIT", Problem: "odd"},
		{Variable: "BRIDGE_EMBEDDED_ADDR", Problem: "has no effect"},
	}
	got := applicable(warnings, map[string]bool{"BRIDGE_EMBEDDED_ADDR": true, "BRIDGE_EMBEDDED_CONFIG": true})
	want := []config.Warning{warnings[0], {Variable: "BRIDGE_EMBEDDED_CONFIG", Problem: "does not apply to the demo, which keeps no data"}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
