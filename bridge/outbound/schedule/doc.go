// Package schedule decides whom to poll next.
//
// The API takes only so many requests a minute, answers for one device a request, and keeps only the
// newest fix. A Policy is asked, with a request in hand, whom it should go to, and is told what the
// poll showed. It has no clock, no goroutine and no I/O: the caller says what time it is, serialises
// the calls and holds the budget. Equal calls give equal answers.
//
// Fixed asks every device once an interval. Adaptive spends the same requests where news is:
//
//   - Of each device it learns, from the times that the fixes themselves carry, the period on the road
//     and of the heartbeats when parked (rhythm), how long after its own time a fix appears (lag: the
//     upload, the skew of the clock, a wrong time zone), what its inputs and its speed say about
//     whether it will go on reporting (liveness), and how keen it is on trips; of the whole fleet,
//     how likely a trip is by the time parked (hazard).
//   - From these follows what may have appeared since the last poll (outlook). The delay that a poll
//     would end is weighed against the price of a request, in seconds of delay (market): a device on
//     the road is polled just after its k-th predicted fix, the smallest k for which k(k+1)/2 periods
//     are worth the price; a parked one after the cube root of 3 x period x price / hazard; one
//     without a rhythm by its rate of news. The moment for a predicted fix is the one at which coming
//     too early, and having to ask again, costs as much as coming too late.
//   - The price is solved for, from what every device would cost at each of a row of prices. Requests
//     that are left over go to whom half the price would have been enough for.
//   - Answers without news teach as well: a fix that should be there is late, and looked for again at
//     growing distances; after three periods and a minute the device counts as parked. Failures
//     (errors, timeouts, throttling) teach nothing.
//
// All times are kept as distances from the first call, by the monotonic clock where the caller's times
// carry one, so that a step of the bridge's own clock is no event. A step of a device's clock is
// noticed by fixes that appear far from where they should, and its lag is learnt anew. Nothing is
// stored: after a restart the first polls are spread over a lap, and a few laps later the plans are as
// good as before.
package schedule
