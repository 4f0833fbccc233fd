// Package fleet models trackers on vehicles in a city: the position of each, its
// reports, and the time at which each report becomes visible at the API.
//
// A device is computed lazily: it holds a random generator and the state of its
// vehicle, and each poll produces the fixes since the poll before. There are no
// goroutines and no timers, so twenty thousand idle devices cost only memory, and
// the model works inside a testing/synctest bubble too.
//
// Three layers, each in its file:
//
//   - roads: a city of streets and avenues laid out from a formula, so that
//     it needs no storage; it has the coordinates of Bogotá and its numbering
//     of streets, not its map.
//   - vehicle: trips along those roads, with acceleration, traffic lights and
//     turns, and the time parked between trips.
//   - device: the tracker on the vehicle: its cadence on the road and
//     parked, upload latency, batches, outages with a buffered flush, a clock
//     that is off, and the readings and alerts of every fix.
//
// The same seed, id and start give the same fixes, independent of the other
// devices and of the polls. Only a cadence with Change set depends on how often
// the device is polled: that is its purpose.
package fleet
