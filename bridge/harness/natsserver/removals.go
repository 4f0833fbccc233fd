package natsserver

import (
	"encoding/json"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// removals has the removals of inbound messages that the broker has acknowledged. A
// nats-server that is killed forgets some removals, even some that are minutes old, and
// restores the messages.
type removals struct {
	mu sync.Mutex
	at map[uint64][]time.Time // of the acknowledgements, by sequence
}

// watch subscribes to the audit of the JetStream API, which has each request and its answer.
func (r *removals) watch(nc *nats.Conn) error {
	_, err := nc.Subscribe("$JS.EVENT.ADVISORY.API", func(m *nats.Msg) {
		var audit struct {
			Subject, Request, Response string
			Timestamp                  time.Time
		}
		if json.Unmarshal(m.Data, &audit) != nil || !strings.HasSuffix(audit.Subject, ".STREAM.MSG.DELETE."+Subjects.Inbound()) || !strings.Contains(audit.Response, `"success":true`) {
			return
		}
		var request struct{ Seq uint64 }
		if json.Unmarshal([]byte(audit.Request), &request) != nil {
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.at[request.Seq] = append(r.at[request.Seq], audit.Timestamp)
	})
	return err
}

// acknowledged returns the times of all removals so far. The caller owns the map.
func (r *removals) acknowledged() map[uint64][]time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.at)
}
