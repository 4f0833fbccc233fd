// Package inbound is the consumer side of the bridge: it posts the messages of
// the inbound stream to the API, and records what became of each.
//
// # Order
//
// The messages of one device, locations and alerts together, are a lane. A lane
// posts its first unfinished message and nothing else; every other lane goes on
// meanwhile. What is finished, posted or dead-lettered, is gone from the stream,
// and what is in the stream is not finished: there is no other memory of what
// was done, so that there is none to lose or to get out of step.
//
// Each run creates its consumer anew. A new consumer of a work queue delivers
// what is left from the first message on, once each and in order, and it
// delivers it at once: the messages that a dead process had in hand come first,
// not after the redelivery wait, and nothing newer can overtake them. The
// consumer's own sequence is counted; a delivery that got lost on the way leaves
// a gap, and the run begins again. A redelivery is of a message that is in a
// lane, or gone.
//
// # Backlogs
//
// What is in memory is bounded, whatever is in the stream. A lane that has its
// share, or that waits for long, hands its messages back with a delay and reads
// them by subject from the stream's leader when their turn comes. Where devices
// that fail have filled the server's account of deliveries, the other devices'
// lanes are found by the subjects that the stream holds. See
// ../decisions/0003-inbound-lanes.md.
//
// # Stopping
//
// Posts that are under way may end, within a grace; those that wait for the token
// or the budget are called back; the consumer is deleted, which hands back
// everything else at once. A result that could not be stored,
// because NATS was gone, is kept for as long as the process lives: the message
// is not posted again.
//
// # At least once
//
// The window in which a crash posts a message again is from its post to the
// acknowledgement, with the result stored between. Idempotency-Key is the same
// at each try.
package inbound
