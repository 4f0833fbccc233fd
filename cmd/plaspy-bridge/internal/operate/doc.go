// Package operate has the commands that change how running bridges treat devices:
// control sets and clears entries of live control, forget erases a device. They write
// to NATS; the bridges follow.
package operate
