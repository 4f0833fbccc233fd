// Package lane decides which message of which device may be posted now, and what
// happens after each outcome. It is pure: it has no clock, goroutine, mutex,
// context or I/O. Time and answers are arguments, [Action]s are return values.
//
// # Lanes
//
// The messages of one device are a lane. A lane posts its first message and
// nothing else until that message is recorded and removed from the stream. Every
// other lane goes on meanwhile. Messages that name no device share the lane
// [Odd], which is only recorded as dead letters.
//
// # Two sources, one order
//
// The caller reads the stream once, in order, and hands each message to
// [Lanes.Deliver]. The lanes keep messages in memory up to a bound. A message
// that does not fit, or that belongs to a lane that waits, is left to the
// stream: the lane remembers only the range of sequences in which its messages
// are, and asks for them with [Read] when their turn comes. Such a range never
// reaches beyond the last delivery, so no message arrives in both ways.
//
// # Trouble
//
// If the first message of a lane fails, the lane waits, for longer each time. While healthy
// lanes are ready, lanes in trouble get one place in sixteen; at any time, a
// quarter of the places is free of them. A device that fails, or 100,000 of them,
// thus takes neither memory nor places from the others.
//
// # Outcomes
//
// A message that was sent and answered has a [Verdict]. A verdict is kept until it
// is recorded, across [Lanes.Reset] too, and recorded before a stop ends. The
// verdict of a message that was never sent can be made again and is not kept.
// Recorded verdicts are remembered for a while, because a server may forget that
// it removed a message.
package lane
