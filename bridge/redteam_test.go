package bridge_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/publisher"
)

// perStream and perConsumer are the verbs of the JetStream API, with a body that
// nats-server accepts. A verb of a stream ends in its name, one of a consumer in the names
// of both.
var (
	perStream = map[string]string{
		"STREAM.INFO": "", "STREAM.MSG.GET": `{"seq":1}`, "DIRECT.GET": `{"seq":1}`, "CONSUMER.NAMES": "{}", "CONSUMER.LIST": "{}",
		"STREAM.CREATE": `{"name":"%s","subjects":["x"]}`, "STREAM.UPDATE": `{"name":"%s","max_msgs":1}`, "STREAM.PURGE": "", "STREAM.DELETE": "",
		"STREAM.MSG.DELETE": `{"seq":1}`, "STREAM.SNAPSHOT": `{"deliver_subject":"_INBOX.snapshot"}`, "STREAM.RESTORE": `{"config":{"name":"%s","subjects":["x"]}}`,
		"STREAM.LEADER.STEPDOWN": "", "STREAM.PEER.REMOVE": `{"peer":"x"}`,
	}
	perConsumer = map[string]string{
		"CONSUMER.CREATE":         `{"stream_name":"%s","config":{"name":"c","ack_policy":"none"}}`,
		"CONSUMER.DURABLE.CREATE": `{"stream_name":"%s","config":{"durable_name":"c","ack_policy":"none"}}`,
		"CONSUMER.INFO":           "", "CONSUMER.MSG.NEXT": `{"batch":1,"no_wait":true}`, "CONSUMER.PAUSE": "{}", "CONSUMER.UNPIN": `{"group":"g"}`,
		"CONSUMER.LEADER.STEPDOWN": "",
	}
	ofServer = []string{"INFO", "STREAM.NAMES", "STREAM.LIST", "STREAM.TEMPLATE.CREATE.x", "META.LEADER.STEPDOWN", "SERVER.REMOVE", "ACCOUNT.PURGE.PLASPY"}
)

// readable are the verbs by which a subscriber reads a stream and keeps its consumers.
var readable = []string{
	"STREAM.INFO", "STREAM.MSG.GET", "DIRECT.GET", "CONSUMER.NAMES", "CONSUMER.LIST",
	"CONSUMER.CREATE", "CONSUMER.DURABLE.CREATE", "CONSUMER.INFO", "CONSUMER.MSG.NEXT", "CONSUMER.PAUSE", "CONSUMER.UNPIN",
}

// TestRedTeam makes each user of deploy/nats.conf send every request of the JetStream API,
// and publish to every subject of the bridge. The server answers the requests that the table
// permits and no others, and afterwards every stream is as it was.
func TestRedTeam(t *testing.T) {
	t.Parallel()
	s, _ := natsConf(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	operator := connect(t, s, "operator", "pass-of-OPERATOR")
	events(ctx, t, operator)
	subjects := publisher.Subjects("plaspy")
	for _, subject := range []string{subjects.Result("location", "truck7"), subjects.DeadLetterUnknown(), "$KV.plaspy_replicas.a"} {
		must[*jetstream.PubAck](t, "publish "+subject)(operator.js.Publish(ctx, subject, []byte("{}")))
	}
	bucket := must[jetstream.KeyValue](t, "open bucket")(operator.js.KeyValue(ctx, "plaspy_last"))
	watch := must[jetstream.KeyWatcher](t, "watch bucket")(bucket.WatchAll(ctx))
	for entry := <-watch.Updates(); entry == nil; entry = <-watch.Updates() {
		continue // the bucket follows the events stream
	}
	names := []string{"PLASPY_EVENTS", "PLASPY_INBOUND", "PLASPY_RESULTS", "PLASPY_DLQ", "KV_plaspy_last", "KV_plaspy_replicas"}
	before := contents(ctx, t, operator, names)
	for user, may := range map[string][]string{
		"subscriber": append(permittedVerbs("PLASPY_EVENTS", "KV_plaspy_last"), "INFO", "STREAM.NAMES", "STREAM.LIST"),
		"gateway":    nil,
		"query":      nil,
	} {
		t.Run(user, func(t *testing.T) {
			got := answered(t, intruder(t, s, user), names, may)
			for _, verb := range got {
				if !slices.Contains(may, verb) {
					t.Errorf("the server answers %s", verb)
				}
			}
			if after := contents(ctx, t, operator, names); !maps.Equal(after, before) {
				t.Errorf("the streams were %v, and are %v", before, after)
			}
		})
	}
}

// TestReaderCreatesNoConsumers enables the user reader of deploy/nats.conf, which is a
// comment there. It reads, and the server answers no request that creates, changes or
// deletes a consumer.
func TestReaderCreatesNoConsumers(t *testing.T) {
	text, err := os.ReadFile("../deploy/nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), "      #{\n      #  user: reader")
	block, after, end := strings.Cut(rest, "      #}\n")
	if !found || !end {
		t.Fatal("no user reader in the file")
	}
	file := filepath.Join(t.TempDir(), "nats.conf")
	enabled := before + "      {\n        user: reader" + strings.ReplaceAll(block, "      #", "      ") + "      }\n" + after
	if err := os.WriteFile(file, []byte(enabled), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("READER_PASSWORD", "pass-of-READER")
	o, err := server.ProcessConfigFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s, _ := natsConfOf(t, o)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	events(ctx, t, connect(t, s, "operator", "pass-of-OPERATOR"))
	reads := []string{"INFO", "STREAM.INFO.PLASPY_EVENTS", "STREAM.MSG.GET.PLASPY_EVENTS", "DIRECT.GET.PLASPY_EVENTS", "STREAM.INFO.KV_plaspy_last", "DIRECT.GET.KV_plaspy_last"}
	for _, verb := range answered(t, intruder(t, s, "reader"), []string{"PLASPY_EVENTS", "PLASPY_INBOUND", "KV_plaspy_last"}, reads) {
		changes := strings.HasPrefix(verb, "CONSUMER.") && !strings.HasPrefix(verb, "CONSUMER.INFO.") && !strings.HasPrefix(verb, "CONSUMER.MSG.NEXT.")
		if changes || strings.HasSuffix(verb, "PLASPY_INBOUND") {
			t.Errorf("the server answers %s", verb)
		}
	}
}

// permittedVerbs lists the requests that a subscriber may send for these streams.
func permittedVerbs(streams ...string) (list []string) {
	for _, stream := range streams {
		for _, verb := range readable {
			if strings.HasPrefix(verb, "CONSUMER.") && perConsumer[verb] != "" || verb == "CONSUMER.INFO" {
				list = append(list, verb+"."+stream+".c")
			} else {
				list = append(list, verb+"."+stream)
			}
		}
	}
	// The bucket is read by watches and by key.
	return slices.DeleteFunc(list, func(v string) bool {
		return v == "CONSUMER.DURABLE.CREATE.KV_plaspy_last.c" || v == "CONSUMER.MSG.NEXT.KV_plaspy_last.c"
	})
}

// intruder connects as a user that does not care about refusals.
func intruder(t *testing.T, s *server.Server, user string) *nats.Conn {
	t.Helper()
	conn, err := nats.Connect(s.ClientURL(), nats.UserInfo(user, "pass-of-"+strings.ToUpper(user)), nats.Timeout(time.Minute),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return conn
}

// answered sends all requests, some of them with reply subjects that are not the user's,
// and returns those that were answered without an error of permission, in any order. It
// waits for those of want.
func answered(t *testing.T, c *nats.Conn, streams, want []string) (got []string) {
	t.Helper()
	const inbox = "_INBOX.redteam."
	answers := make(chan *nats.Msg, 4096)
	if c.Opts.User != "query" { // which may not subscribe to inboxes
		must[*nats.Subscription](t, "subscribe")(c.ChanSubscribe(inbox+">", answers))
	}
	send := func(verb, body string) {
		t.Helper()
		for _, reply := range []string{
			inbox + verb, "$JS.API.STREAM.PURGE.PLASPY_INBOUND", "$JS.API.STREAM.DELETE.PLASPY_EVENTS", "plaspy.in.location.forged", "plaspy.location.forged",
			"$KV.plaspy_replicas.forged", "_INBOX_bridge.forged",
		} {
			msg := &nats.Msg{Subject: "$JS.API." + verb, Reply: reply, Data: []byte(body), Header: nats.Header{"Nats-Rollup": {"all"}, "Reply-To": {"plaspy.location.forged"}}}
			if err := c.PublishMsg(msg); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, verb := range ofServer {
		send(verb, "")
	}
	for _, stream := range streams {
		for verb, body := range perStream {
			send(verb+"."+stream, named(body, stream))
		}
		for _, verb := range slices.Sorted(maps.Keys(perConsumer)) { // CREATE comes first
			send(verb+"."+stream+".c", named(perConsumer[verb], stream))
		}
	}
	for _, subject := range []string{
		"plaspy.location.forged", "plaspy.alert.forged.SOS", "plaspy.device.forged", "plaspy.result.location.forged", "plaspy.dlq.unknown", "plaspy.in.forged",
		"$KV.plaspy_last.forged", "$KV.plaspy_replicas.forged", "$KV.plaspy_control.fleet", "$JS.FC.KV_plaspy_replicas.x", "$JS.ACK.PLASPY_INBOUND.c.1.1.1.1.0",
		"_INBOX_bridge.forged", "$SYS.REQ.SERVER.PING", "$SYS.REQ.ACCOUNT.PLASPY.INFO",
	} {
		if err := c.PublishRequest(subject, inbox+subject, []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	missing := slices.Clone(want)
	limit, again := time.After(time.Minute), time.NewTicker(200*time.Millisecond)
	defer again.Stop()
	for len(missing) > 0 {
		select {
		case <-again.C: // the consumer did not exist yet
			for _, verb := range missing {
				name, stream := cutVerb(verb)
				if err := c.PublishRequest("$JS.API."+verb, inbox+verb, []byte(named(perStream[name]+perConsumer[name], stream))); err != nil {
					t.Fatal(err)
				}
			}
		case m := <-answers:
			verb, ok := strings.CutPrefix(m.Subject, inbox)
			if !ok { // a stored message has its own subject
				verb = "CONSUMER.MSG.NEXT.PLASPY_EVENTS.c"
			}
			got = append(got, verb)
			missing = slices.DeleteFunc(missing, func(w string) bool { return w == verb })
		case <-limit:
			t.Fatalf("no answer to %v", missing)
		}
	}
	for {
		select {
		case m := <-answers:
			if verb, ok := strings.CutPrefix(m.Subject, inbox); ok {
				got = append(got, verb)
			}
		default:
			return got
		}
	}
}

// cutVerb returns the parts of a verb of a stream or a consumer.
func cutVerb(verb string) (name, stream string) {
	for _, list := range []map[string]string{perStream, perConsumer} {
		for name := range list {
			if rest, ok := strings.CutPrefix(verb, name+"."); ok {
				stream, _, _ = strings.Cut(rest, ".")
				return name, stream
			}
		}
	}
	return "", ""
}

// named puts a stream's name into a body.
func named(body, stream string) string {
	if strings.Contains(body, "%s") {
		return fmt.Sprintf(body, stream)
	}
	return body
}

// contents describes the messages of streams.
func contents(ctx context.Context, t *testing.T, operator client, names []string) map[string]string {
	t.Helper()
	got := map[string]string{}
	for _, name := range names {
		i := must[jetstream.Stream](t, "look up "+name)(operator.js.Stream(ctx, name)).CachedInfo()
		got[name] = fmt.Sprintf("%d messages from %d to %d, at most %d, subjects %v", i.State.Msgs, i.State.FirstSeq, i.State.LastSeq, i.Config.MaxMsgs, i.Config.Subjects)
	}
	return got
}
