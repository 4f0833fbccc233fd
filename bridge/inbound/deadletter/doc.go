// Package deadletter manages inbound messages that were given up: it lists
// them, shows them, puts them back into the inbound stream, and removes them.
//
// # Replay
//
// Letters go back in the order of their stream, one at a time, which keeps the
// order of each device. A letter is removed once the inbound stream has accepted
// its message. The message's id is made of the letter's sequence, so that a
// replay that was cut off between the two can be repeated: within the inbound
// stream's duplicate window, two minutes, the second one is known; after that it
// is a message of its own.
//
// A message that fails again is a letter again, and Plaspy-History on it has
// the failures before.
package deadletter
