// Package inventory keeps the account's devices: the list, the devices chosen to be
// polled, and the device events that report their changes.
//
// # Flow
//
// [Inventory.Run] reads the API's device list at start and once per refresh,
// checks it, and hands it to the [Fleet], which polls the chosen devices. Then it
// compares the list with the newest device event that the stream holds of each
// device, and publishes the difference: added, changed, removed.
// [Inventory.Load] takes those events over each time that the state is read from
// the stream.
//
// # Rules
//
// [Selection] chooses devices by id, glob and group.
//
// A list that fails changes nothing. A list that is empty, or lacks more than half
// and at least three of the devices of the list before it, is doubtful: it
// removes no device until the next scheduled refresh lacks the same ones. The
// same holds for the devices of the chosen groups.
//
// Of several replicas, only the one that polls a device publishes its events. If
// the stream refuses the fence of an event, the state is read again. An event that
// the stream can never take is logged once and left out until the device's entry
// changes.
//
// A removed device's last position is deleted from the bucket before the event is
// published, and once more at the next refresh, because a poll that was under way
// may have brought it back. If the device returns, its position is restored.
//
// # Concurrency
//
// The directory of devices is pure and guarded by the inventory's mutex. One
// goroutine reads the list and publishes additions and changes. Removals and
// returns run on up to eight goroutines beside it, because each of them waits for
// the broker first.
package inventory
