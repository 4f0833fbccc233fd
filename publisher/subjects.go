package publisher

import (
	"errors"
	"fmt"
	"strings"
)

// MaxToken is the longest encoded id, in bytes, that a subject of the bridge
// carries. A server's control line is limited to 4,096 bytes by default, and an
// alert's subject holds two ids.
const MaxToken = 1024

// ErrToken means that an id cannot be part of a subject: it is empty, or longer
// than [MaxToken] once encoded.
var ErrToken = errors.New("id cannot be a subject token")

const upperHex = "0123456789ABCDEF"

// Encode writes any id as one token that is legal in a NATS subject, a key of a
// key-value bucket and a level of an MQTT topic: every byte but ASCII letters,
// digits, '-' and '_' becomes '=' and two upper-case hex digits. [Decode] is
// its inverse for every string.
func Encode(id string) string {
	escaped := 0
	for i := 0; i < len(id); i++ {
		if !plain(id[i]) {
			escaped++
		}
	}
	if escaped == 0 {
		return id
	}
	var b strings.Builder
	b.Grow(len(id) + 2*escaped)
	for i := 0; i < len(id); i++ {
		if c := id[i]; plain(c) {
			b.WriteByte(c)
		} else {
			b.WriteByte('=')
			b.WriteByte(upperHex[c>>4])
			b.WriteByte(upperHex[c&15])
		}
	}
	return b.String()
}

// Token encodes an id and checks that it can stand in a subject; its error
// wraps [ErrToken].
func Token(id string) (string, error) {
	if id == "" {
		return "", fmt.Errorf("%w: it is empty", ErrToken)
	}
	t := Encode(id)
	if len(t) > MaxToken {
		return "", fmt.Errorf("%w: %d bytes encoded, at most %d", ErrToken, len(t), MaxToken)
	}
	return t, nil
}

// Decode returns the id that [Encode] encoded. It accepts only the spelling that
// Encode writes, so that no two tokens mean the same device.
func Decode(token string) (string, error) {
	if !strings.Contains(token, "=") {
		for i := 0; i < len(token); i++ {
			if !plain(token[i]) {
				return "", fmt.Errorf("decode token %q: byte %d should be written as =%02X", token, i, token[i])
			}
		}
		return token, nil
	}
	b := make([]byte, 0, len(token))
	for i := 0; i < len(token); i++ {
		c := token[i]
		if plain(c) {
			b = append(b, c)
			continue
		}
		if c != '=' || i+2 >= len(token) {
			return "", fmt.Errorf("decode token %q: byte %d should be '=' and two upper-case hex digits", token, i)
		}
		hi, lo := strings.IndexByte(upperHex, token[i+1]), strings.IndexByte(upperHex, token[i+2])
		if hi < 0 || lo < 0 || plain(byte(hi<<4|lo)) {
			return "", fmt.Errorf("decode token %q: %q is not an escape that the encoding writes", token, token[i:i+3])
		}
		b = append(b, byte(hi<<4|lo))
		i += 2
	}
	return string(b), nil
}

func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

// Subjects builds every subject, stream and bucket name of one bridge. Its
// value is the prefix (BRIDGE_PREFIX); no other code writes a subject.
//
// The device and alert parameters are tokens, as [Token] returns them.
type Subjects string

// Location is the subject of a device's new and changed last locations.
func (s Subjects) Location(device string) string { return string(s) + ".location." + device }

// Alert is the subject of the changes of one alert of a device.
func (s Subjects) Alert(device, alert string) string {
	return string(s) + ".alert." + device + "." + alert
}

// Device is the subject of a device's addition, change and removal.
func (s Subjects) Device(device string) string { return string(s) + ".device." + device }

// InLocation is the subject of locations to post.
func (s Subjects) InLocation(device string) string { return string(s) + ".in.location." + device }

// InAlert is the subject of alerts to post.
func (s Subjects) InAlert(device string) string { return string(s) + ".in.alert." + device }

// InUnknown stands for every other subject of the inbound stream, in the name of a
// span. It is no subject.
func (s Subjects) InUnknown() string { return string(s) + ".in.{unknown}" }

// InboundAll matches every subject of the inbound stream, unknown ones included.
func (s Subjects) InboundAll() string { return string(s) + ".in.>" }

// InboundOf matches the inbound subjects of one device, of every kind.
func (s Subjects) InboundOf(device string) string { return string(s) + ".in.*." + device }

// Result is the subject of the API's answer to a posted message; kind is
// "location" or "alert".
func (s Subjects) Result(kind, device string) string {
	return string(s) + ".result." + kind + "." + device
}

// DeadLetter is the subject of an inbound message that is not retried.
func (s Subjects) DeadLetter(kind, device string) string {
	return string(s) + ".dlq." + kind + "." + device
}

// DeadLetterUnknown is the subject of a dead letter with an unknown inbound subject.
func (s Subjects) DeadLetterUnknown() string { return string(s) + ".dlq.unknown" }

// API is the root of the query service's subjects, without a trailing dot.
func (s Subjects) API() string { return string(s) + ".api" }

// Events names the stream of published events.
func (s Subjects) Events() string { return s.stream("EVENTS") }

// Inbound names the stream of messages to post.
func (s Subjects) Inbound() string { return s.stream("INBOUND") }

// Results names the stream of the API's answers to posts.
func (s Subjects) Results() string { return s.stream("RESULTS") }

// DeadLetters names the dead-letter stream.
func (s Subjects) DeadLetters() string { return s.stream("DLQ") }

// LastBucket names the key-value bucket of every device's newest location.
func (s Subjects) LastBucket() string { return s.bucket("last") }

// ReplicasBucket names the key-value bucket that replicas share.
func (s Subjects) ReplicasBucket() string { return s.bucket("replicas") }

// ControlBucket names the key-value bucket of live control.
func (s Subjects) ControlBucket() string { return s.bucket("control") }

// LastKey is the subject of a device's entry in the last-location bucket.
func (s Subjects) LastKey(device string) string { return BucketKey(s.LastBucket(), device) }

// BucketStream names the stream behind a key-value bucket.
func BucketStream(bucket string) string { return "KV_" + bucket }

// BucketKey is the subject of one key of a bucket; ">" stands for all keys.
func BucketKey(bucket, key string) string { return "$KV." + bucket + "." + key }

// Kind parses a subject of the events stream: "location", "alert"
// or "device", the device's token, and the alert's token if there is one.
// ok is false for any other subject.
func (s Subjects) Kind(subject string) (kind, device, alert string, ok bool) {
	rest, found := strings.CutPrefix(subject, string(s)+".")
	if !found {
		return "", "", "", false
	}
	kind, rest, found = strings.Cut(rest, ".")
	if !found || rest == "" {
		return "", "", "", false
	}
	device, alert, nested := strings.Cut(rest, ".")
	switch {
	case device == "" || strings.Contains(alert, "."):
	case kind == "alert" && nested && alert != "", (kind == "location" || kind == "device") && !nested:
		return kind, device, alert, true
	}
	return "", "", "", false
}

func (s Subjects) stream(name string) string {
	return strings.ToUpper(strings.ReplaceAll(string(s), "-", "_")) + "_" + name
}

func (s Subjects) bucket(name string) string {
	return strings.ReplaceAll(string(s), "-", "_") + "_" + name
}

// Literal reports whether a message can be published to a subject: it has no wildcards,
// white space or empty tokens. It also refuses wildcard characters within a token, which
// the server would accept.
func Literal(subject string) bool {
	for token := range strings.SplitSeq(subject, ".") {
		if token == "" || strings.ContainsAny(token, "*> \t\r\n\x00") {
			return false
		}
	}
	return true
}

// Permission is one right on NATS that a part of the bridge needs. Exactly one
// of Publish and Subscribe is set. Every package that uses NATS exports its
// needs as a list of these, so that nothing else has to repeat its subjects.
type Permission struct {
	Publish   string // a subject, which may hold wildcards
	Subscribe string // a subject, which may hold wildcards
	// Why is the consequence of a missing permission: "replicas cannot share the work".
	Why string
	// Try is a subject without wildcards that Publish or Subscribe matches. Publishing
	// "{}" to it, or subscribing to it briefly, has no effect. It is empty if there is
	// no such subject.
	Try string
	// Creates names the stream that the permission allows to create. Once that stream
	// exists, the permission is not needed. It is empty for other permissions.
	Creates string
	// Optional means that the bridge works without the permission.
	Optional bool
}

// Subject returns Publish or Subscribe, whichever is set.
func (p Permission) Subject() string {
	if p.Publish != "" {
		return p.Publish
	}
	return p.Subscribe
}

// Absent is the name of a device, key or consumer that does not exist. A request
// about it changes nothing.
const Absent = "plaspy-bridge-check"

// Request is the permission for a request to the JetStream API about a stream, such
// as "STREAM.INFO", or about the account if stream is empty. The request must have no
// effect if its body is "{}".
func Request(verb, stream, why string) Permission {
	subject := strings.TrimSuffix("$JS.API."+verb+"."+stream, ".")
	return Permission{Publish: subject, Try: subject, Why: why}
}

// Reading lists the permissions for reading a stream with an ordered pull
// consumer. filter is the subject that the consumer filters by; with an empty
// one, or with several, the filter is not part of the request's subject.
func Reading(stream, filter, why string) []Permission {
	create := "$JS.API.CONSUMER.CREATE." + stream + "."
	try := create + Absent
	if filter != "" {
		try += "." + filter
	}
	return []Permission{
		{Publish: create + ">", Try: try, Why: why},
		{Publish: "$JS.API.CONSUMER.MSG.NEXT." + stream + ".*", Try: "$JS.API.CONSUMER.MSG.NEXT." + stream + "." + Absent, Why: why},
		{Publish: "$JS.API.CONSUMER.DELETE." + stream + ".*", Try: "$JS.API.CONSUMER.DELETE." + stream + "." + Absent, Why: why},
	}
}

// Watching lists the permissions for watching a key-value bucket and writing to
// it.
func Watching(bucket, why string) []Permission {
	stream := BucketStream(bucket)
	create := "$JS.API.CONSUMER.CREATE." + stream + "."
	get := "$JS.API.DIRECT.GET." + stream + "."
	flow := "$JS.FC." + stream + "."
	remove := "$JS.API.CONSUMER.DELETE." + stream + "."
	return []Permission{
		Request("STREAM.INFO", stream, why),
		{Publish: create + ">", Try: create + Absent + "." + BucketKey(bucket, Absent), Why: why},
		{Publish: remove + "*", Try: remove + Absent, Why: why},
		// The server stops sending to a watch that does not answer its flow control.
		{Publish: flow + ">", Try: flow + Absent + ".1", Why: why},
		{Publish: get + ">", Try: get + BucketKey(bucket, Absent), Why: why},
		{Publish: BucketKey(bucket, ">"), Why: why},
	}
}

// Replies is the permission to receive the answers to requests. prefix is that of
// the connection's inboxes, "_INBOX" by default.
func Replies(prefix string) Permission {
	return Permission{Subscribe: prefix + ".>", Try: prefix + "." + Absent, Why: "no answer from NATS arrives"}
}

// Needs lists the permissions that a [Publisher] needs, in addition to [Replies].
func Needs(s Subjects) []Permission {
	const (
		events  = "the events are not published"
		reading = "the bridge cannot read what it published before"
	)
	last := BucketStream(s.LastBucket())
	all := []Permission{
		{Publish: s.Location("*"), Why: events},
		{Publish: s.Alert("*", "*"), Why: events},
		{Publish: s.Device("*"), Why: events},
		Request("STREAM.INFO", s.Events(), reading),
		Request("STREAM.MSG.GET", s.Events(), "a lost acknowledgement cannot be resolved"),
	}
	const positions = "a removed device keeps its last position"
	all = append(all,
		Request("STREAM.MSG.GET", last, positions),
		Permission{Publish: BucketKey(s.LastBucket(), ">"), Why: positions})
	all = append(all, Reading(s.Events(), s.Location(Absent), reading)...)
	return append(all, Reading(last, "", reading)...)
}

// NeedsSilent lists the permissions that [RememberSilent] needs beside [Needs].
// Without them the bridge works nevertheless.
func NeedsSilent(s Subjects) []Permission {
	const (
		forgotten = "silent devices are not remembered beyond BRIDGE_RETENTION"
		kept      = "a removed device keeps its last alert silent"
	)
	bucket := s.SilentBucket()
	stream := BucketStream(bucket)
	create := Request("STREAM.CREATE", stream, "the stream "+stream+" has to be created by an operator")
	create.Creates = stream
	all := append([]Permission{Request("STREAM.INFO", stream, forgotten), create}, Reading(stream, "", forgotten)...)
	all = append(all, Request("STREAM.MSG.GET", stream, kept), Permission{Publish: BucketKey(bucket, ">"), Why: kept})
	for i := range all {
		all[i].Optional = true
	}
	return all
}
