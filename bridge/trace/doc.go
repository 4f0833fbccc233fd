// Package trace makes the bridge's OpenTelemetry traces, and sends its metrics to a
// collector if that is wanted. A trace leads from a poll or an inbound message
// through the requests to the API to the messages in NATS. Subscribers continue it
// with the traceparent header.
//
// # The spans of a trace
//
//	poll                                     one poll of a device, until its events are stored
//	  GET /api/devices/{id}/lastLocation     each request to the API, retries included
//	  publish plaspy.location.{device}       each event, from the publisher's queue to its acknowledgement
//	list                                     a read of the device list, with the same children
//	process plaspy.in.location.{device}      the handling of an inbound message, child of its producer's span
//	  POST /api/devices/{id}/locations       each attempt
//	  settle plaspy.in.location.{device}     the result is stored and the message removed
//	query plaspy.api.last.{device}           a query, child of the caller's span
//	POST /api/Auth/Token                     a request for a token, a trace of its own
//
// Spans carry the device's id and the names of subjects. They never carry a
// position, a text from outside, a header, a token or the query of a URL. Trace
// context is not sent to the API, which belongs to another company.
//
// # Off
//
// The nil [Tracer] is off and returns the zero [Span]. Each of their methods is then
// one comparison, without an allocation or a context value. In a trace that is not
// sampled only the root span is made. The messages carry its context, so that
// subscribers do not sample it either.
//
// # Export
//
// Ended spans wait in a bounded queue, which drops spans when it is full, so no work
// waits for the collector. A failure of the collector is logged once when it starts
// and once when it ends. [Tracer.Shutdown] sends the remaining spans until its
// context ends.
package trace
