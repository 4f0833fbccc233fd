// Package trace makes the bridge's OpenTelemetry traces: one from a poll or an
// inbound message through the requests to the API to the messages in NATS, whose
// traceparent header lets subscribers go on with it.
//
// # The spans of a trace
//
//	poll                                     one turn of a device, until its events are stored
//	  GET /api/devices/{id}/lastLocation     each request that the API sees, a repeated one too
//	  publish plaspy.location.{device}       each event, from the publisher's queue to its acknowledgement
//	list                                     a reading of the device list, with the same below it
//	process plaspy.in.location.{device}      an inbound message in hand, child of its producer's span
//	  POST /api/devices/{id}/locations       each try
//	query plaspy.api.last.{device}           a question, child of the caller's span
//	POST /api/Auth/Token                     a request for a token, a trace of its own
//
// Spans carry the device's id and names of subjects; never a position, a text
// from outside, a header, a token or the query of a URL. The API, which
// is another company's, is sent no trace context.
//
// # Off
//
// The nil [Tracer] is off, and the [Span] it gives is the zero one: each method
// is one comparison then, without an allocation and without a value put into a
// context. Under a trace that the sampler left out, only the root is made, whose
// context the messages carry, so that subscribers leave it out as well.
//
// # Export
//
// Ended spans wait in a bounded queue, which drops spans that find no room: no
// work waits for the collector. A fault of it is logged once when it starts and once
// when it is over. [Tracer.Shutdown] sends the remaining spans within its context.
package trace
