// Package message reads and writes the messages of the inbound side: the
// address that a subject gives, the forms of a body, the result and the dead
// letter that a message ends in.
//
// It is pure: it has no clock and does no I/O, and it keeps no state between
// calls. Values are not safe for concurrent use.
//
// To read a message, use [AddressOf] for its subject and [Read] for its body.
// To record what became of it, use [NewResult] after the API took it, and
// [NewLetter] if it will not be tried again.
package message
