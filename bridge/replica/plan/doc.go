// Package plan drafts the plan of a group of replicas: which of them share the devices,
// how many requests a minute each may send, and which one posts inbound messages.
//
// A plan takes slots away or gives slots out, never both. Between two such plans is a
// [pause] in which the group sends less than the limit, so no sliding minute has more
// requests than that. A replica that is gone loses its seat at once. Loads that change
// a little, or only for a moment, change nothing.
//
// The package is pure: it reads no clock, does no I/O and starts no goroutine.
// [Situation.Draft] depends on its fields alone. Package replica decides which replicas
// are alive, writes the plan, and makes sure that all members obey it.
package plan
