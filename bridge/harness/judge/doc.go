// Package judge compares the answers of the API in a run with the events in the stream, and
// the accepted inbound messages with the posts. It is pure: it reads no clock, stream or
// log. [Outbound] and [Inbound] get the facts of a run and return the counts.
//
// # Counts
//
// A change is a complete answer of lastLocation with status 200 whose content differs
// from the answer before it. [Counts.Shown] is the number of changes, and
// [Counts.Published] the number of location events in the stream. The content is the
// location without inactiveSeconds.
//
//   - Lost: a change that is not in the stream and is not excused.
//   - Duplicated: a location event with the same content as the event before it of the
//     same device, or any event whose ce-id occurred before.
//   - Reordered: a location event that follows an event of a later change.
//   - Different: a location event that is not, byte for byte, an answer of the API.
//   - Stale: a device whose last location event is not its last change.
//
// The expected alert events are derived from the location events in the stream. Missing
// and unexpected ones have counts of their own.
//
// The rate limit holds for the requests that arrive, failed ones included. [Busiest]
// finds the 60 seconds with the most requests, at any offset.
//
// # Excuses
//
// The bridge's promises allow a change to be missing in the following cases only. Each
// rule examines every answer that showed the change, and the life of the bridge that
// received it. All answers have to be excused. The faults of another bridge excuse
// nothing.
//
// Killed: the bridge that received the answer was killed within [Case.Grace] of it, and
// had not asked for that device again. Time in which the broker was away, or in which
// the process was suspended or cut off from the broker, does not count against the
// grace, because nothing could be stored in it. A graceful stop without a broker counts
// as a kill. With the alert history the grace is longer by the timeout of one request,
// because a fix waits for that request.
//
// Timed out: the process was suspended from the answer on, for so long that its request
// had timed out when it could have read the answer. A pause excuses at most as many
// changes as there are workers.
//
// Overtaken: within the grace the process was suspended or cut off from the broker, and
// before the end of that another bridge had asked for the device. The first bridge then
// holds an older state, which it must not publish.
//
// Taken: the broker lost acknowledged messages, because it was restarted on an older
// copy of its store or because the stream was deleted. The change was first shown before
// the loss, and was shown or stored after the copy was made. It was in the stream when
// the harness last read it, or was shown too shortly before that. Every device's newest
// state has to be stored again: Stale does not know this excuse.
//
// With back-fill nothing is excused. Locations that the API never showed but keeps in
// its history have to be in the stream too. The only exception is a deleted stream: there
// is no gap to fill if nothing was published before.
//
// # Inbound messages
//
// A message that the stream accepted is lost if it was neither posted nor dead-lettered.
// It is reordered if it was posted after a later message of the same device.
//
// A message may be posted again if the API did not confirm the first post, if the
// process was killed within the grace, or if the process was then suspended or cut off
// for so long that another bridge had the lease. Each such event excuses as many posts
// as there are inbound workers. A post that was suspended with its process on its way to
// the API may also arrive late.
//
// A broker that is killed may lose the acknowledgements of its last second. nats-server
// 2.15.2 also forgets removals that are minutes old when it is killed, and restores the
// messages, which the next bridge posts again. Such a post is excused if the removal was
// acknowledged and the broker was away since; see [InboundCase.Removed].
package judge
