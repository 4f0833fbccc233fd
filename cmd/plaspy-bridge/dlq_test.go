package main

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

// bury starts a server with the bridge's streams and three dead letters, and
// points the environment at it.
func bury(t *testing.T) jetstream.JetStream {
	t.Helper()
	srv := natstest.Start(t, natstest.Listen)
	js, err := jetstream.New(srv.Client(t))
	if err != nil {
		t.Fatal(err)
	}
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
		if _, err := js.PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	clearEnv(t, "NATS_URL", srv.ClientURL())
	return js
}

func dlq(t *testing.T, args string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	status = execute(t.Context(), strings.Fields("dlq "+args), &out, &errs)
	return status, out.String(), errs.String()
}

func TestDLQ(t *testing.T) {
	js := bury(t)
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
		{"list --reason rejected --device dev=201", 0, "0 dead letters", "", 3},
		{"list --reason REJECTED", 0, "2 dead letters", "", 3},
		{"list --kind picture", 2, "", "kind", 3},
		{"show 1", 0, "sequence 10", "", 3},
		{"show 9", 1, "", "no such dead letter", 3},
		{"show x", 2, "", "not the sequence", 3},
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
				t.Errorf("a stranger's bytes reach the terminal: %q", stdout)
			}
		})
	}
}

func TestDLQWithoutServer(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	clearEnv(t, "BRIDGE_EMBEDDED_ADDR", addr)
	status, _, stderr := dlq(t, "list")
	if status != 1 || !strings.Contains(stderr, "not connected to NATS") {
		t.Errorf("status %d, stderr %q", status, stderr)
	}
}
