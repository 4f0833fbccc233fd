// Package outbound is the outbound wing: it asks the API for every device's last
// location, finds out what changed, and has it published.
//
// # Flow
//
// One dispatcher waits for a slot of the request budget, then asks the schedule
// which device to poll with it, and hands a turn of that device to a worker. The
// worker asks the API and compares the answer with the device's track. If it is
// news, it reads the gap before it, plans a publication and hands its events to
// the publisher. The device goes back to the schedule when they are stored, so a
// change that a poll saw is in the stream before that device is polled again.
//
// # Parts
//
//	schedule    which device to poll next; pure
//	track       what is published of a device; pure
//	gap         back-fill and alert history
//	quota       results per device and day
//	inventory   the account's devices and their events
//
// # State
//
// The stream is the state. At start, after the broker was away, and when devices
// are assigned to this replica, the pool reads what the stream last took of every
// device and compares with that. After a fence was refused it does so for one
// device. The pool keeps hashes of a location: one of the whole, and four bytes
// for each field, by which [Pool.Why] names the fields that changed.
//
// # Concurrency
//
// A device is polled by one worker at a time, and busy until its turn has ended.
// While it is, its track belongs to the turn. The schedule, the set of devices and
// which of them are busy are guarded by the fleet's mutex, under which nothing
// blocks.
package outbound
