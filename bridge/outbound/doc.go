// Package outbound polls the API for every device's last location, compares it with
// the events stream, and publishes the changes.
//
// # Flow
//
// One dispatcher (dispatch.go) waits for the request budget, then asks the schedule
// which device to poll, and hands a turn of that device to a worker. The worker
// (turn.run) asks the API and compares the answer with the device's track
// (turn.compare). If it is news, it reads the gap before it, plans a publication and
// hands its events to the publisher (publish.go). The device returns to the schedule
// when the events are stored (turn.end), so a change that a poll saw is in the stream
// before that device is polled again.
//
// # Parts
//
//	schedule    which device to poll next; pure
//	track       which events to publish for a device; pure
//	gap         back-fill and alert history
//	quota       results per device and day
//	inventory   the account's devices and their events
//	decision    how the last polls of a device ended
//	widespread  notices that all polls fail
//
// The pool applies the terms of live control, and keeps the schedule's memory, in
// terms.go. A poll on demand ([Pool.Poll]) and the answer to why a device is polled when
// it is ([Pool.Why]) are in requests.go.
//
// # State
//
// The stream is the state (resync.go). At start, after the broker was away, and when
// devices are assigned to this replica, the pool reads the last events of every
// device from the stream into its track. After a refused fence it does so for one
// device. The pool keeps hashes of a location: one of the whole, and two bytes
// for each field, by which [Pool.Why] names the fields that changed.
//
// # Hand-over
//
// When a device moves to another replica, its turn in flight goes on, and the other
// replica polls the device after that turn has ended ([Pool.Reassign]). So the answer of
// the owner is always newer than what the stream holds. It is published on top of an
// event that a previous owner stored late (turn.renew). A turn that was revoked, because
// another replica may have polled its device, publishes nothing.
//
// # Concurrency
//
// A device is polled by one worker at a time, and is busy until its turn has ended.
// Its track belongs to the turn while the device is busy. The fleet's mutex, under which
// nothing blocks, guards the schedule, the set of devices and which of them are busy.
package outbound
