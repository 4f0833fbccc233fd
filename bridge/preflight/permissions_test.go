package preflight_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"plaspy-bridge/bridge/sim"
)

// TestPermissions takes one permission away in each row.
func TestPermissions(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, publish, subscribe string // denied
		warn, fail               int
		want                     string
	}{
		{"replies", "", "_INBOX.>", 0, 1, `FAIL permissions: .*: allow this user to subscribe to _INBOX`},
		{"stream info", "$JS.API.STREAM.INFO.PLASPY_EVENTS", "", 0, 1, `FAIL stream PLASPY_EVENTS: .*: allow this user to publish to \$JS.API.STREAM.INFO.PLASPY_EVENTS`},
		{"stream create", "$JS.API.STREAM.CREATE.PLASPY_DLQ", "", 0, 1, `FAIL stream PLASPY_DLQ: is missing, and this user may not create it: create it, or allow`},
		{"consumers", "$JS.API.CONSUMER.CREATE.PLASPY_EVENTS.>", "", 0, 1, `FAIL permissions: .*allow this user to publish to \$JS.API.CONSUMER.CREATE.PLASPY_EVENTS.*cannot read what it published`},
		{"filtered consumers", "$JS.API.CONSUMER.CREATE.PLASPY_EVENTS.*.>", "", 0, 1, `FAIL permissions: .*allow this user to publish to \$JS.API.CONSUMER.CREATE.PLASPY_EVENTS.>: without it the bridge cannot read what it published`},
		{"pulling", "$JS.API.CONSUMER.MSG.NEXT.PLASPY_EVENTS.*", "", 0, 1, `FAIL permissions: .*publish to \$JS.API.CONSUMER.MSG.NEXT.PLASPY_EVENTS.\*`},
		{"removing consumers", "$JS.API.CONSUMER.DELETE.PLASPY_EVENTS.*", "", 0, 1, `FAIL permissions: .*publish to \$JS.API.CONSUMER.DELETE.PLASPY_EVENTS.\*`},
		{"dead letters in the live view", "$JS.API.DIRECT.GET.PLASPY_DLQ", "", 1, 0, `warn permissions: .*publish to \$JS.API.DIRECT.GET.PLASPY_DLQ: without it the live view`},
		{"results", "plaspy.result.alert.*", "", 0, 1, `FAIL permissions: .*publish to plaspy.result.alert.\*: without it no result is stored`},
		{"dead letters of unknown subjects", "plaspy.dlq.unknown", "", 0, 1, `FAIL permissions: .*publish to plaspy.dlq.unknown`},
		{"newest locations", "$JS.API.CONSUMER.CREATE.KV_plaspy_last.>", "", 0, 1, `FAIL permissions: .*publish to \$JS.API.CONSUMER.CREATE.KV_plaspy_last.>`},
		{"results", "$JS.API.CONSUMER.CREATE.PLASPY_RESULTS.>", "", 0, 1, `FAIL permissions: .*PLASPY_RESULTS.>: without it a location that comes back`},
		{"inbound messages by subject", "$JS.API.STREAM.MSG.GET.PLASPY_INBOUND", "", 0, 1, `FAIL permissions: .*MSG.GET.PLASPY_INBOUND: without it nothing inbound is posted`},
		{"deletion of inbound messages", "$JS.API.STREAM.MSG.DELETE.>", "", 0, 1, `FAIL permissions: .*MSG.DELETE.PLASPY_INBOUND: without it messages that were posted stay in the stream`},
		{"events by subject", "$JS.API.STREAM.MSG.GET.PLASPY_EVENTS", "", 0, 1, `FAIL permissions: .*lost acknowledgement`},
		{"replicas' keys", "$JS.API.DIRECT.GET.KV_plaspy_replicas.>", "", 0, 1, `FAIL permissions: .*DIRECT.GET.KV_plaspy_replicas.>: without it replicas cannot share`},
		{"flow control", "$JS.FC.>", "", 1, 1, `FAIL permissions: .*publish to \$JS.FC.KV_plaspy_replicas.>: without it replicas cannot share`},
		{"answers to queries", "_INBOX.>", "", 0, 1, `FAIL permissions: .*publish to _INBOX.>: without it the query service's answers do not arrive`},
		{"service discovery", "", "$SRV.>", 0, 1, `FAIL permissions: .*subscribe to \$SRV.>`},
		{"locations", "plaspy.location.*", "", 0, 1, `FAIL permissions: .*allow this user to publish to plaspy.location.\*: without it the events are not published`},
		{"one device's locations", "plaspy.location.truck7", "", 0, 1, `FAIL permissions: .*publish to plaspy.location.\*`},
		{"alerts", "plaspy.alert.>", "", 0, 1, `FAIL permissions: .*publish to plaspy.alert.\*.\*`},
		{"replicas", "$KV.plaspy_replicas.>", "", 0, 1, `FAIL permissions: .*publish to \$KV.plaspy_replicas.>: without it replicas cannot share`},
		{"query service", "", "plaspy.api.>", 0, 1, `FAIL permissions: .*subscribe to plaspy.api`},
		{"account's limits", "$JS.API.INFO", "", 1, 0, `ok   JetStream: limits are unknown`},
		{"what the user may", "$SYS.REQ.USER.INFO", "", 1, 0, `warn permissions: the permission to publish events was not tested.*\$SYS.REQ.USER.INFO`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, sim.Options{})
			p := &server.Permissions{Publish: &server.SubjectPermission{}, Subscribe: &server.SubjectPermission{}}
			if tt.publish != "" {
				p.Publish.Deny = []string{tt.publish}
			}
			if tt.subscribe != "" {
				p.Subscribe.Deny = []string{tt.subscribe}
			}
			s := r.broker(p)
			nc, _ := r.admin(s)
			heard, err := nc.SubscribeSync("plaspy.>")
			if err != nil {
				t.Fatal(err)
			}
			r.want(tt.warn, tt.fail, tt.want)
			if err := nc.Flush(); err != nil {
				t.Fatal(err)
			}
			if n, _, _ := heard.Pending(); n > 0 {
				m, _ := heard.NextMsg(time.Second)
				t.Errorf("subscribers heard the check: %s", m.Subject)
			}
		})
	}
}
