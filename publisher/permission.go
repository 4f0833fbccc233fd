package publisher

import "strings"

// Permission is one right on NATS that a part of the bridge needs. Exactly one
// of Publish and Subscribe is set. Every package that uses NATS exports its
// needs as a list of these, so that nothing else has to repeat its subjects.
type Permission struct {
	Publish   string // a subject, which may hold wildcards
	Subscribe string // a subject, which may hold wildcards
	// Why says what does not work without the permission: "replicas cannot
	// share the work".
	Why string
	// Try is a subject without wildcards under Publish or Subscribe. A message
	// "{}" that is published to it has no effect, and neither has a short
	// subscription. Empty means that a try would have an effect.
	Try string
	// Creates names the stream that the permission is there to create. Once that
	// stream exists, the permission is not needed. Empty for all others.
	Creates string
	// Optional means that the bridge does its work without the permission.
	Optional bool
}

// Subject is the subject of the permission, whichever verb it is for.
func (p Permission) Subject() string {
	if p.Publish != "" {
		return p.Publish
	}
	return p.Subscribe
}

// absent is the name of a device, key or consumer that does not exist. A request
// about it changes nothing.
const absent = "plaspy-bridge-check"

// Request is the permission for a request to the JetStream API about a stream,
// such as "STREAM.INFO", or with an empty stream about the account. It must be one
// that does nothing if its body is "{}".
func Request(verb, stream, why string) Permission {
	subject := strings.TrimSuffix("$JS.API."+verb+"."+stream, ".")
	return Permission{Publish: subject, Try: subject, Why: why}
}

// Reading lists the permissions for reading a stream with an ordered pull
// consumer. filter is the subject that the consumer filters by; with an empty
// one, or with several, the filter is not part of the request's subject.
func Reading(stream, filter, why string) []Permission {
	create := "$JS.API.CONSUMER.CREATE." + stream + "."
	try := create + absent
	if filter != "" {
		try += "." + filter
	}
	return []Permission{
		{Publish: create + ">", Try: try, Why: why},
		{Publish: "$JS.API.CONSUMER.MSG.NEXT." + stream + ".*", Try: "$JS.API.CONSUMER.MSG.NEXT." + stream + "." + absent, Why: why},
		{Publish: "$JS.API.CONSUMER.DELETE." + stream + ".*", Try: "$JS.API.CONSUMER.DELETE." + stream + "." + absent, Why: why},
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
		{Publish: create + ">", Try: create + absent + "." + BucketKey(bucket, absent), Why: why},
		{Publish: remove + "*", Try: remove + absent, Why: why},
		// The server stops sending to a watch that does not answer its flow control.
		{Publish: flow + ">", Try: flow + absent + ".1", Why: why},
		{Publish: get + ">", Try: get + BucketKey(bucket, absent), Why: why},
		{Publish: BucketKey(bucket, ">"), Why: why},
	}
}

// Replies is the permission to receive the answers to any request. prefix is
// that of the connection's inboxes, "_INBOX" by default.
func Replies(prefix string) Permission {
	return Permission{Subscribe: prefix + ".>", Try: prefix + "." + absent, Why: "no answer from NATS arrives"}
}

// Needs lists the permissions that a [Publisher] needs, beside [Replies].
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
	all = append(all, Reading(s.Events(), s.Location(absent), reading)...)
	return append(all, Reading(last, "", reading)...)
}
