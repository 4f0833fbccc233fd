package inbound

import (
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"plaspy-bridge/bridge/inbound/message"
)

// TestLargeLetters: a message that is too large for a dead letter becomes one with
// less in it, and holds up nothing.
func TestLargeLetters(t *testing.T) {
	t.Parallel()
	const wrong = "not JSON"
	for _, tt := range []struct {
		name    string
		body    string
		header  []string
		payload int32 // the server's limit
		letters int32 // the limit of the stream of dead letters
		mark    string
	}{
		{"headers", wrong, []string{"Big", strings.Repeat("x", 65300)}, 1 << 20, -1, message.HeaderDropped},
		{"id", wrong, []string{"Nats-Msg-Id", strings.Repeat("x", 65300)}, 1 << 20, -1, message.HeaderDropped},
		{"small letters", wrong + strings.Repeat(" ", 100<<10), nil, 1 << 20, 8 << 10, message.HeaderTruncated},
		{"small server", wrong + strings.Repeat(" ", 65400), nil, 64 << 10, -1, message.HeaderTruncated},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, func(o *server.Options) { o.MaxPayload = tt.payload })
			st, err := r.js.Stream(t.Context(), subjects.DeadLetters())
			if err != nil {
				t.Fatal(err)
			}
			cfg := st.CachedInfo().Config
			cfg.MaxMsgSize = tt.letters
			if _, err := r.js.UpdateStream(t.Context(), cfg); err != nil {
				t.Fatal(err)
			}
			r.put("plaspy.in.location.d", []byte(tt.body), tt.header...)
			r.put("plaspy.in.location.d", location(1))
			api := newFakeAPI(nil)
			run(t, r.consumer(api))
			r.waitCount(subjects.Inbound(), 0)
			letter := r.messages(subjects.DeadLetters(), 1)[0]
			if letter.Header.Get(tt.mark) == "" || letter.Header.Get(message.HeaderSequence) != "1" {
				t.Errorf("letter of %d bytes %v", len(letter.Data), letter.Header)
			}
			r.waitCount(subjects.Results(), 2)
			if len(api.accepted()) != 1 {
				t.Error("the next message is not posted")
			}
		})
	}
}
