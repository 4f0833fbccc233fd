// Package fleet models trackers on vehicles in a city: where each is, what it
// reports, and when that report becomes visible at the API.
//
// A device is computed lazily: it holds a random generator and the state of
// its vehicle, and produces the fixes between two questions when it is asked
// the second. There are no goroutines and no timers, so twenty thousand idle
// devices cost their memory and nothing else, and the model works inside a
// testing/synctest bubble as it does outside.
//
// Three layers, each in its file:
//
//   - roads: a city of streets and avenues laid out from a formula, so that
//     it needs no storage; it lies where Bogotá does and has its manner of
//     numbering streets, not its map.
//   - vehicle: trips along those roads, with acceleration, traffic lights and
//     turns, and the time parked between trips.
//   - device: what the tracker makes of it: its cadence on the road and
//     parked, upload latency, batches, outages with a buffered flush, a clock
//     that is off, and the readings and alerts of every fix.
//
// The same seed, id and start give the same fixes, whatever the other devices
// do and however often anyone asks; only a cadence with Change set depends on
// how often it is asked, since that is what it is for.
package fleet
