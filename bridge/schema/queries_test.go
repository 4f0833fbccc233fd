package schema_test

import (
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"plaspy-bridge/publisher"
)

// queries sends the query service every kind of request, and some that
// it refuses.
func (r *run) queries(t *testing.T) {
	const question = `{"from":"2026-01-01T00:00:00Z","to":"2030-01-01T00:00:00Z"}`
	s := publisher.Subjects("plaspy").API()
	questions := []struct{ subject, body, answer string }{
		{"devices", "", "devicesAnswer"},
		{"device.dev=201", "", "deviceAnswer"},
		{"last.dev=201", "", "lastAnswer"},
		{"locations.dev=201", question, "locationsAnswer"},
		{"alerts.dev=201", question, "alertsAnswer"},
		{"why.dev=201", "", "whyAnswer"},
		{"poll.dev=201", "", "pollAnswer"},
		{"device.nobody", "", "refusal"},
		{"why.nobody", "", "refusal"},
		{"poll.nobody", "", "refusal"},
		{"locations.dev=201", "{}", "refusal"},
	}
	// All at once, because a replica waits a moment before it refuses a device that another one may know.
	answers := make([]*nats.Subscription, len(questions))
	for i, q := range questions {
		inbox := r.conn.NewRespInbox()
		var err error
		if answers[i], err = r.conn.SubscribeSync(inbox); err != nil {
			t.Fatal(err)
		}
		if err := r.conn.PublishRequest(s+"."+q.subject, inbox, []byte(q.body)); err != nil {
			t.Fatal(err)
		}
	}
	for i, q := range questions {
		channel, err := r.channel(s + "." + q.subject)
		if err != nil {
			t.Error(err)
			continue
		}
		if message := r.message(channel); q.answer != "refusal" && q.body != "" {
			if err := r.body(t, message, []byte(q.body)); err != nil {
				t.Errorf("question %s: %v", q.subject, err)
			}
		}
		m, err := answers[i].NextMsg(time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.headers(t, q.answer, m.Header); err != nil {
			t.Errorf("headers of the answer to %s: %v %v", q.subject, m.Header, err)
		}
		if err := r.body(t, q.answer, m.Data); err != nil {
			t.Errorf("answer to %s: %s: %v", q.subject, m.Data, err)
		}
		if v := decodeAnswer(m); q.answer == "whyAnswer" && v["decisions"] == nil {
			t.Errorf("answer to %s: %s", q.subject, m.Data)
		}
	}
}

// TestExamplesOfTheReadme checks the README's example messages against the schemas.
func TestExamplesOfTheReadme(t *testing.T) {
	page, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	a := read(t, "plaspy")
	checked := map[string]bool{}
	for _, example := range regexp.MustCompile(`(?m)^(plaspy\.\S+) +(\{.*\})$`).FindAllStringSubmatch(string(page), -1) {
		channel, err := a.channel(example[1])
		if err != nil {
			t.Error(err)
			continue
		}
		message := a.message(channel)
		if err := a.body(t, message, []byte(example[2])); err != nil {
			t.Errorf("example of %s: %v", example[1], err)
		}
		checked[message] = true
	}
	for _, message := range []string{"location", "alert", "device", "inboundLocation", "inboundAlert", "result"} {
		if !checked[message] {
			t.Errorf("the README has no example of message %s", message)
		}
	}
}
