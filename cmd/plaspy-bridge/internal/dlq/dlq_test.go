package dlq

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/inbound/deadletter"
	"plaspy-bridge/cmd/plaspy-bridge/internal/clitest"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

var program = clitest.With(Command)

func TestMain(m *testing.M) { program.Main(m) }

// TestReasonOnce: a letter without an answer shows its reason once.
func TestReasonOnce(t *testing.T) {
	l := deadletter.Letter{Reason: "invalid: body: is empty", Error: "invalid: body: is empty"}
	if text := describe(&l); strings.Count(text, l.Reason) != 1 || sentence(l.Reason, l.Error) != "" {
		t.Errorf("got %s", text)
	}
	l.Error = `{"success":false,"error":"no such thing"}`
	if text := describe(&l); !strings.Contains(text, "answer      no such thing\n") || sentence(l.Reason, l.Error) != "no such thing" {
		t.Errorf("got %s", text)
	}
}

// deadLetters starts a server with the bridge's streams and three dead letters, and
// points the environment at it.
func deadLetters(t *testing.T) jetstream.JetStream {
	t.Helper()
	srv := natstest.Start(t, natstest.Listen)
	js := natstest.JetStream(t, srv.Client(t))
	subjects := publisher.Subjects("plaspy")
	streams := slices.DeleteFunc(subjects.Streams(publisher.StreamOptions{Inbound: true}), func(c jetstream.StreamConfig) bool {
		return len(c.Sources) > 0 // of no interest here, and slow to stop
	})
	if _, err := publisher.EnsureStreams(t.Context(), js, streams); err != nil {
		t.Fatal(err)
	}
	for i, reason := range []string{"rejected with status 404", "rejected with status 400", "too old"} {
		m := nats.NewMsg(subjects.DeadLetter("location", "dev=201"))
		m.Data = []byte("{\"n\":1}\x1b[31m")
		m.Header.Set("Plaspy-Reason", reason)
		m.Header.Set("Plaspy-Subject", "plaspy.in.location.dev=201")
		m.Header.Set("Plaspy-Sequence", fmt.Sprint(10+i))
		m.Header.Set("Origin", "gateway\x1b[31m")
		for _, name := range []string{"Plaspy-Error", "Plaspy-Status", "Plaspy-First-Try", "Plaspy-Last-Try", "Plaspy-History"} {
			m.Header.Set(name, "\x1b]0;owned\a"+name+"\x1b[2J")
		}
		if i == 0 {
			m.Header.Set("Plaspy-Error", `{"success":false,"error":"no such thing"}`)
		}
		if _, err := js.PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	clitest.ClearEnv(t, "NATS_URL", srv.ClientURL())
	return js
}

func dlq(t *testing.T, args string) (status int, stdout, stderr string) {
	t.Helper()
	return program.Run(t, strings.Fields("dlq "+args)...)
}

func TestDLQ(t *testing.T) {
	js := deadLetters(t)
	left := func() uint64 {
		st, err := js.Stream(t.Context(), "PLASPY_DLQ")
		if err != nil {
			t.Fatal(err)
		}
		return st.CachedInfo().State.Msgs
	}
	for _, tt := range []struct {
		args           string
		status         int
		stdout, stderr string
		left           uint64
	}{
		{"list", 0, "3 dead letters", "", 3},
		{"list --limit 2", 0, "2 dead letters, and more", "", 3},
		{"list --limit 3", 0, "3 dead letters\n", "", 3},
		{"list --limit -1", 2, "", "--limit", 3},
		{"list --reason 404", 0, "1 dead letter\n", "", 3},
		{"list --reason 404", 0, "no such thing", "", 3},
		{"list --json --reason nothing", 0, "[]\n", "", 3},
		{"show 1 --json", 0, `"body":"{\"n\":1}\u001b[31m"`, "", 3},
		{"replay --all --timeout 0s", 2, "", "--timeout", 3},
		{"replay 9 --dry-run", 1, "0 would be replayed, 1 cannot be replayed\n", "letter 9 would be kept: no such dead letter", 3},
		{"replay 9", 1, "0 replayed, 1 left", "dead letter 9 is kept", 3},
		{"list --reason rejected --device dev=201", 0, "0 dead letters", "", 3},
		{"list --reason REJECTED", 0, "2 dead letters", "", 3},
		{"list --kind picture", 2, "", "kind", 3},
		{"show 1", 0, "sequence 10", "", 3},
		{"show 9", 1, "", "no such dead letter", 3},
		{"show x", 2, "", "not a sequence number", 3},
		{"replay", 2, "", "--all", 3},
		{"replay 1 --all", 2, "", "--all", 3},
		{"replay 1 --rate -1", 2, "", "--rate", 3},
		{"replay --all --dry-run", 0, "3 would be replayed", "", 3},
		{"replay --all --reason 404", 0, "1 replayed", "", 2},
		{"replay 2 --rate 100", 0, "1 replayed", "", 1},
		{"purge --all", 2, "", "--yes", 1},
		{"purge --all --dry-run", 0, "1 would be purged", "", 1},
		{"purge 3 --older-than 24h", 0, "0 purged", "", 1},
		{"purge --all --yes", 0, "1 purged", "", 0},
	} {
		t.Run(tt.args, func(t *testing.T) {
			status, stdout, stderr := dlq(t, tt.args)
			if status != tt.status || !strings.Contains(stdout, tt.stdout) || !strings.Contains(stderr, tt.stderr) || left() != tt.left {
				t.Errorf("status %d, %d left, stdout %q, stderr %q", status, left(), stdout, stderr)
			}
			if strings.ContainsRune(stdout, '\x1b') {
				t.Errorf("control characters of a message reach the terminal: %q", stdout)
			}
		})
	}
}

// TestDLQJSON checks that list prints an array, and that each letter of it has the fields
// of show, except for headers and body.
func TestDLQJSON(t *testing.T) {
	deadLetters(t)
	_, stdout, _ := dlq(t, "list --json")
	var list []map[string]any
	if err := json.Unmarshal([]byte(stdout), &list); err != nil || len(list) != 3 {
		t.Fatalf("%v: %s", err, stdout)
	}
	_, stdout, _ = dlq(t, "show 2 --json")
	var whole map[string]any
	if err := json.Unmarshal([]byte(stdout), &whole); err != nil {
		t.Fatalf("%v: %s", err, stdout)
	}
	headers, _ := whole["headers"].(map[string]any)
	if whole["seq"] != 2.0 || whole["subject"] != "plaspy.in.location.dev=201" || whole["reason"] != "rejected with status 400" || headers["Origin"] == nil || headers["Plaspy-Reason"] != nil {
		t.Errorf("got %v", whole)
	}
	for name, value := range list[1] {
		if fmt.Sprint(whole[name]) != fmt.Sprint(value) {
			t.Errorf("%s is %v in the list, and %v alone", name, value, whole[name])
		}
	}
}

// TestDLQLeft: a letter that cannot go back is named, and the others go back.
func TestDLQLeft(t *testing.T) {
	js := deadLetters(t)
	m := nats.NewMsg("plaspy.dlq.location.d")
	m.Header.Set("Plaspy-Truncated", "9999")
	if _, err := js.PublishMsg(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	status, stdout, stderr := dlq(t, "replay --all --wait --timeout 100ms")
	if status != 1 || !strings.Contains(stdout, "3 replayed, 1 left\n") || !strings.Contains(stderr, "letter 4 is kept") || !strings.Contains(stderr, "1 dead letter could not be replayed") {
		t.Errorf("status %d, stdout %q, stderr %q", status, stdout, stderr)
	}
	if !strings.Contains(stdout, "1\tnot decided yet, it is message 1 of the inbound stream\n") || !strings.Contains(stderr, "3 are not decided") {
		t.Errorf("stdout %q, stderr %q", stdout, stderr)
	}
}

// TestDLQDryRun checks that a dry run has the same counts as the replay after it, and
// reports the reason of each letter that stays.
func TestDLQDryRun(t *testing.T) {
	js := deadLetters(t)
	for _, header := range [][2]string{{"Plaspy-Truncated", "9999"}, {"Plaspy-Subject", "plaspy.location.d"}, {"Plaspy-Subject", "elsewhere\x1b[31m"}} {
		m := nats.NewMsg("plaspy.dlq.location.d")
		m.Header.Set(header[0], header[1])
		if _, err := js.PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	for _, run := range []struct{ args, total, kept, failed string }{
		{"replay --all --dry-run", "3 would be replayed, 3 cannot be replayed\n", "letter %d would be kept: ", "3 dead letters cannot be replayed\n"},
		{"replay --all", "3 replayed, 3 left\n", "letter %d is kept: ", "3 dead letters could not be replayed\n"},
	} {
		status, stdout, stderr := dlq(t, run.args)
		if status != 1 || !strings.HasSuffix(stdout, run.total) || !strings.HasSuffix(stderr, run.failed) {
			t.Errorf("%s: status %d, stdout %q, stderr %q", run.args, status, stdout, stderr)
		}
		for seq := 4; seq <= 6; seq++ {
			if want := fmt.Sprintf(run.kept, seq); !strings.Contains(stderr, want) {
				t.Errorf("%s: no %q in %q", run.args, want, stderr)
			}
		}
		if !strings.Contains(stderr, "kept: dead letter cannot be replayed: 4 has only part of its body\n") {
			t.Errorf("%s: no reason in %q", run.args, stderr)
		}
		if strings.ContainsRune(stdout+stderr, '\x1b') {
			t.Errorf("%s: control characters of a message reach the terminal: %q", run.args, stderr)
		}
	}
}

// TestDLQWait: the results are reported.
func TestDLQWait(t *testing.T) {
	js := deadLetters(t)
	go func() {
		for seq, body := range []string{`{"posted":true,"status":201}`, `{"posted":false,"reason":"rejected","error":"{\"error\":\"no such device\"}","status":404,"deadLetter":7}`} {
			m := nats.NewMsg("plaspy.result.location.dev=201")
			m.Data = []byte(body)
			m.Header.Set("ce-id", fmt.Sprintf("PLASPY_INBOUND:%d:abc", seq+1))
			for { // the bridge's part, once the message is there
				st, err := js.Stream(t.Context(), "PLASPY_INBOUND")
				if err != nil {
					return
				}
				if st.CachedInfo().State.LastSeq > uint64(seq) {
					break
				}
			}
			if _, err := js.PublishMsg(t.Context(), m); err != nil {
				return
			}
		}
	}()
	status, stdout, stderr := dlq(t, "replay 1 2 --wait")
	if want := "2 replayed\n1\tposted with status 201\n2\tis dead letter 7 now: rejected: no such device\n"; status != 1 || stdout != want || !strings.Contains(stderr, "of 2 replayed messages 1 became dead letters again") {
		t.Errorf("status %d, stdout %q, stderr %q, want %q", status, stdout, stderr, want)
	}
}

// TestDLQDenied: a user without rights learns which one is missing. The server does
// not answer the request, so the command waits for its deadline.
func TestDLQDenied(t *testing.T) {
	srv := natstest.Start(t, natstest.Listen, func(o *server.Options) {
		o.Users = []*server.User{{Username: "u", Password: "p", Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"$JS.API.>"}}}}}
	})
	clitest.ClearEnv(t, "NATS_URL", srv.ClientURL(), "NATS_USER", "u", "NATS_PASSWORD", "p")
	list := func(limit time.Duration) (status int, stderr string) {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		status, _, stderr = program.RunContext(ctx, "dlq", "list")
		return status, stderr
	}
	const missing = "$JS.API.STREAM.INFO.PLASPY_DLQ"
	limit := 200 * time.Millisecond
	status, stderr := list(limit)
	for !strings.Contains(stderr, missing) && limit < 30*time.Second { // perhaps the process got no CPU
		limit *= 2
		status, stderr = list(limit)
	}
	if status != 1 || !strings.Contains(stderr, missing) {
		t.Errorf("status %d, stderr %q", status, stderr)
	}
}

func TestDLQWithoutServer(t *testing.T) {
	clitest.ClearEnv(t, "BRIDGE_EMBEDDED_ADDR", "127.0.0.1:1")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond) // waited out
	defer cancel()
	status, _, stderr := program.RunContext(ctx, "dlq", "list")
	if status != 1 || !strings.Contains(stderr, "not connected to NATS") {
		t.Errorf("status %d, stderr %q", status, stderr)
	}
}
