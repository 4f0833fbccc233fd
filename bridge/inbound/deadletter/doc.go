// Package deadletter manages inbound messages that were given up: it lists
// them, shows them, puts them back into the inbound stream, and removes them.
//
// # Replay
//
// Letters go back in the order of their stream, one at a time, which keeps the
// order of each device. A letter is removed once the inbound stream has accepted
// its message. The message's id is made of the letter's sequence, so a replay that was
// interrupted between the two can be repeated: within the duplicate window of the
// inbound stream, two minutes, the stream drops the second message. Later the message is
// posted twice.
//
// A message that fails again becomes a new dead letter. Its header Plaspy-History lists
// the earlier failures.
package deadletter
