// Package forecast learns when devices report, and predicts the result of a poll.
//
// A [Device] holds the knowledge about one device, a [Fleet] that about all of them together. Each answer
// to a poll goes into [Fleet.Observe]; [Fleet.Outlook] then describes the fixes that may have appeared on the
// device by any later moment. The package decides nothing about polling: package schedule weighs an
// [Outlook] against the price of a request.
//
// From the times that the fixes themselves carry, a Device learns:
//
//   - rhythm: the period between fixes on the road, and between heartbeats while parked.
//   - lag: the time from a fix's own time to its appearance at the API. Upload, clock skew and a wrong
//     time zone are all part of it.
//   - liveness: how likely its inputs and speed mean that it goes on reporting as on the road.
//   - habit: how many trips it has begun, compared with an average device parked for as long.
//
// A Fleet learns the hazard of a trip by the time parked, the usual lag, and the periods that many
// devices share.
//
// An answer without news is evidence too: after three periods and a minute without one, a device
// counts as parked. Failed polls must not be handed to Observe.
//
// The package is pure. It has no clock, goroutine or I/O; moments are [Tick] values from the caller.
// Nothing is safe for concurrent use.
package forecast
