// Package decision records how the last polls of a device ended: published, unchanged,
// deferred, failed, and why. Package outbound fills in a [Decision] during a turn, keeps
// it in the [Log] of the device, and shows it to operators.
//
// There are several decisions for each device, so a log keeps them in a small form, and
// equal texts only once. The package does no I/O, reads no clock and has no lock: the
// caller guards a log.
package decision
