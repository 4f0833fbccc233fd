// Package inbound is the consumer side of the bridge: it posts the messages of
// the inbound stream to the API, and records the outcome of each.
//
// # Flow
//
// While this replica has the posting seat, [Consumer.Run] makes passes (pass.go). A
// reader reads the stream once, in order, and hands each message to the lanes of
// package lane, which decide. Workers (pass.loop) ask the lanes for actions: post a
// message (post.go), give it up, record an outcome, or read messages that were left to
// the stream. Recorders (record.go) store results and dead letters, and then delete
// the message (queue.go).
//
// # Terms
//
// A try to post a message ends in a [lane.Answer]: it asks for another try, or it has a
// [lane.Verdict], which is final. The [message.Decision] gives the reason of the verdict.
// The [message.Outcome] made from it holds the result and the dead letter to store.
//
// # Order
//
// The messages of one device, locations and alerts together, are a lane. A lane
// posts its first message only. A message is deleted once its outcome is stored,
// and not before, so that the stream holds exactly the unfinished messages. A
// process that starts reads the stream from its first message on.
//
// # Backlogs
//
// The memory in use is bounded, whatever the stream holds. Messages that do not
// fit stay in the stream, and are read again when their turn comes. See
// ../decisions/0003-inbound-lanes.md.
//
// # Stopping
//
// Posts that were sent may end within the grace. Posts that wait for the token or the
// budget are withheld. The posting seat is released once the outcomes are recorded, or
// the grace is over. An outcome that could not be recorded, because NATS was away, is kept
// for as long as the process lives: the message is not posted again.
//
// # At least once
//
// A crash between a post and the removal of its message posts the message again.
// The Idempotency-Key is the same at each try.
package inbound
