package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// TestMessagesOfMaxPayload hands in messages of the server's max_payload, and of one byte
// less and more. Each that the stream accepts ends in exactly one result and one dead
// letter: it is no location, or larger than the API accepts.
func TestMessagesOfMaxPayload(t *testing.T) {
	fleet := newFleet()
	log := logFile(t)
	p := startProcess(t, fleet, log)
	p.ready()
	conn, js := jetStream(t, "nats://"+p.broker)
	device := fleet.IDs()[0]
	most := int(conn.MaxPayload())
	valid := func(size int) []byte {
		head, tail := `{"dateTime":"2026-01-02T03:04:05Z","latitude":4.7,"longitude":-74.1,"note":"`, `"}`
		return []byte(head + strings.Repeat("x", size-len(head)-len(tail)) + tail)
	}
	invalid := func(size int) []byte { return []byte(strings.Repeat("{", size)) }
	accepted := 0
	for name, body := range map[string]func(int) []byte{"valid": valid, "invalid": invalid} {
		for _, size := range []int{most - 1, most, most + 1} {
			_, err := js.Publish(t.Context(), "plaspy.in.location."+device, body(size))
			switch {
			case size > most && !errors.Is(err, nats.ErrMaxPayload):
				t.Errorf("%s, %d bytes: %v, want the client to refuse it", name, size, err)
			case size <= most && err != nil:
				t.Fatalf("%s, %d bytes: %v", name, size, err)
			case size <= most:
				accepted++
			}
		}
	}
	p.await("results", func() bool { return streamMessages(t, js, "PLASPY_RESULTS") >= uint64(accepted) })
	if n := streamMessages(t, js, "PLASPY_INBOUND"); n != 0 {
		p.await("an empty inbound stream", func() bool { return streamMessages(t, js, "PLASPY_INBOUND") == 0 })
	}
	if results, got := streamMessages(t, js, "PLASPY_RESULTS"), streamMessages(t, js, "PLASPY_DLQ"); results != uint64(accepted) || got != uint64(accepted) {
		t.Errorf("%d results and %d dead letters of %d messages, want one of each", results, got, accepted)
	}
	st, err := js.Stream(t.Context(), "PLASPY_RESULTS")
	if err != nil {
		t.Fatal(err)
	}
	for seq := range uint64(accepted) {
		m, err := st.GetMsg(t.Context(), seq+1)
		if err != nil {
			t.Fatal(err)
		}
		var result struct {
			ID         string
			Posted     *bool
			DeadLetter int
		}
		if err := json.Unmarshal(m.Data, &result); err != nil || result.Posted == nil || *result.Posted || result.ID == "" || result.DeadLetter == 0 {
			t.Errorf("result %d is %.200s: %v", seq+1, m.Data, err)
		}
	}
	if status, took := p.signal(syscall.SIGTERM); status != 0 || took > 15*time.Second {
		t.Errorf("status %d after %v", status, took)
	}
}

// streamMessages is the number of messages that a stream holds.
func streamMessages(t *testing.T, js jetstream.JetStream, name string) uint64 {
	t.Helper()
	st, err := js.Stream(t.Context(), name)
	if err != nil {
		t.Fatal(fmt.Errorf("look up %s: %w", name, err))
	}
	return st.CachedInfo().State.Msgs
}
