package inbound

import "plaspy-bridge/publisher"

// Needs lists the permissions that a [Consumer] needs.
func Needs(s publisher.Subjects) []publisher.Permission {
	const (
		posting = "nothing inbound is posted"
		again   = "inbound messages are posted again and again"
		results = "no result is stored, and what was posted is posted again"
		dead    = "an inbound message that cannot be posted blocks its device"
		absent  = "plaspy-bridge-check" // a consumer that does not exist
	)
	in := s.Inbound()
	ack, info := "$JS.ACK."+in+".", "$JS.API.CONSUMER.INFO."+in+"."
	all := append(publisher.Reading(in, "", posting),
		publisher.Request("STREAM.INFO", in, posting),
		publisher.Request("STREAM.INFO", s.Results(), results),
		publisher.Request("STREAM.INFO", s.DeadLetters(), dead),
		publisher.Request("STREAM.MSG.GET", in, posting),
		publisher.Request("DIRECT.GET", in, posting),
		// A server that does not answer this has the consumer made anew for ever.
		publisher.Permission{Publish: info + "*", Try: info + absent, Why: posting},
		// As long as a real one, of a consumer that does not exist.
		publisher.Permission{Publish: ack + ">", Try: ack + absent + ".1.1.1.1.1", Why: again},
		publisher.Permission{Publish: "$JS.API.STREAM.MSG.DELETE." + in, Why: "a message of a long backlog stays in the stream and blocks its device"})
	for _, kind := range []string{"location", "alert"} {
		all = append(all, publisher.Permission{Publish: s.Result(kind, "*"), Why: results}, publisher.Permission{Publish: s.DeadLetter(kind, "*"), Why: dead})
	}
	return append(all, publisher.Permission{Publish: s.DeadLetterUnknown(), Why: dead})
}
