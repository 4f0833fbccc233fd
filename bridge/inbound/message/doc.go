// Package message reads and writes the messages of the inbound side: the
// address that a subject gives, the forms of a body, the result and the dead
// letter that a message ends in.
//
// It is pure: it has no clock and does no I/O, and it keeps no state between
// calls. Values are not safe for concurrent use.
//
// To read a message, use [AddressOf] for its subject and [Reader.Read] for its body.
// [Split] finds the elements of a batch. To record the end of a message, use
// [Writer.Outcome]: it gives the result, and first the dead letter if the message
// will not be tried again.
package message
