package deadletter

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/inbound/message"
)

// TestDryRunForesees checks that a dry run reports for each dead letter the action of the
// replay after it, and changes nothing.
func TestDryRunForesees(t *testing.T) {
	t.Parallel()
	const limit = 8 << 10
	r := newRig(t)
	r.limitMessages(limit)
	if _, err := r.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "OTHER", Subjects: []string{"other.>"}, Storage: jetstream.MemoryStorage}); err != nil {
		t.Fatal(err)
	}
	letters := []struct {
		name, subject string
		body          int
		header        string // with 1,000 bytes
		truncated     bool
		stays         string // part of the reason; empty if it goes back
	}{
		{name: "good", subject: "plaspy.in.location.d", body: 10},
		{name: "good, of the same device", subject: "plaspy.in.location.d", body: 10},
		{name: "good, of an unknown kind", subject: "plaspy.in.picture", body: 10},
		{name: "part of a body", subject: "plaspy.in.location.d", body: 10, truncated: true, stays: "part of its body"},
		{name: "no subject", body: 10, stays: "no subject"},
		{name: "a wildcard", subject: "plaspy.in.>", body: 10, stays: "no message can have the subject"},
		{name: "a space", subject: "plaspy.in.location.d 1", body: 10, stays: "no message can have the subject"},
		{name: "an empty token", subject: "plaspy.in..d", body: 10, stays: "no message can have the subject"},
		{name: "another stream's", subject: "other.location.d", body: 10, stays: "is not a subject of stream PLASPY_INBOUND"},
		{name: "no stream's", subject: "elsewhere.in.location.d", body: 10, stays: "is not a subject of stream PLASPY_INBOUND"},
		{name: "too large with its headers", subject: "plaspy.in.location.d", body: limit - 500, header: "Other"},
		{name: "as large as the stream takes", subject: "plaspy.in.location.d", body: limit},
		{name: "too large", subject: "plaspy.in.location.d", body: limit + 1, stays: "too large"},
		{name: "good, after all of them", subject: "plaspy.in.alert.d", body: 10},
	}
	for _, l := range letters {
		m := nats.NewMsg(subjects.DeadLetter("location", "d"))
		m.Data = make([]byte, l.body)
		if l.subject != "" {
			m.Header.Set(message.HeaderSubject, l.subject)
		}
		if l.header != "" {
			m.Header.Set(l.header, strings.Repeat("x", 1000))
		}
		if l.truncated {
			m.Header.Set(message.HeaderTruncated, "9999")
		}
		if _, err := r.js.PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	nothing := uint64(len(letters) + 1)
	seqs := []uint64{nothing}
	for i := range letters {
		seqs = append(seqs, uint64(i+1))
	}
	job := func(dry bool, seqs []uint64) (n Count, left map[uint64]bool, reasons map[uint64]error) {
		t.Helper()
		left, reasons = make(map[uint64]bool), make(map[uint64]error)
		n, err := r.Replay(t.Context(), Job{Seqs: seqs, DryRun: dry, Each: func(d Done) {
			left[d.Letter.Seq], reasons[d.Letter.Seq] = d.Err != nil, d.Err
		}})
		if err != nil {
			t.Fatal(err)
		}
		return n, left, reasons
	}
	all, _, _ := job(true, nil)
	foreseen, stay, reasons := job(true, seqs)
	if all != (Count{Done: foreseen.Done, Left: foreseen.Left - 1}) { // the one that does not exist
		t.Errorf("of all letters %+v, of all that are named %+v", all, foreseen)
	}
	if got := r.seqs(Filter{}); len(got) != len(letters) || len(r.returned()) != 0 {
		t.Errorf("after the dry run %d letters and %d messages", len(got), len(r.returned()))
	}
	done, left, _ := job(false, seqs)
	if foreseen != done || !maps.Equal(stay, left) {
		t.Errorf("foreseen %+v, %v\ndone     %+v, %v", foreseen, stay, done, left)
	}
	for i, l := range letters {
		reason := reasons[uint64(i+1)]
		if (l.stays == "") != (reason == nil) || reason != nil && (!strings.Contains(reason.Error(), l.stays) || !errors.Is(reason, ErrNotBack)) {
			t.Errorf("%s: %v, want %q", l.name, reason, l.stays)
		}
	}
	if !errors.Is(reasons[nothing], ErrNoLetter) {
		t.Errorf("no letter: %v", reasons[nothing])
	}
}

// TestDryRunWithoutInboundStream: no letter could go back.
func TestDryRunWithoutInboundStream(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.bury(message.Location, "d", 1, "rejected")
	if err := r.js.DeleteStream(t.Context(), subjects.Inbound()); err != nil {
		t.Fatal(err)
	}
	for _, dry := range []bool{true, false} {
		if n, err := r.Replay(t.Context(), Job{DryRun: dry}); err != nil || n != (Count{Left: 1}) {
			t.Errorf("dry %t: %+v, %v", dry, n, err)
		}
	}
}
