// Package harness proves the bridge's promises from outside: it runs the real
// binary against the simulated API and a real nats-server, both of them as they
// are deployed, injects faults, and afterwards compares what the API showed with
// what the streams hold.
//
// # Parts
//
// [Build] makes the two binaries. A [Rig] is one API, one broker and one bridge
// or several. The bridges and the broker are processes of their own, killed,
// paused and restarted through [Process]; the API is a sim.Server in this
// process behind real TCP, with a [Door] for each life of each bridge, so that
// what was shown, and to whom, is known exactly and not by asking. A [Link] is
// the network between one bridge and the broker. [API.Front] puts a gateway in
// front of the API, and [API.Freeze] kills the connections to it. A [Plan] is a schedule of
// faults made from a seed; [Rig.Inject] carries it out. [Judge] compares and
// gives a [Report].
//
// # What counts
//
// A change is an answer of lastLocation, complete and with status 200, whose
// content differs from the answer before it. Shown is the number of changes,
// Published of location events in the stream. Content is the location without
// inactiveSeconds.
//
// Lost is a change that is not in the stream and that nothing excuses.
// Duplicated is a location event whose content is that of the event before it
// of the same device, or any event whose ce-id occurred before. Reordered is a
// location event that is in the stream behind one that was shown after it.
// Different is a location event that is not, byte for byte, what the API
// showed. Stale is a device whose last location event is not its last change.
// Alert edges are derived from the location events in the stream; edges that are
// missing, or too many, are counted by themselves.
//
// The budget is held to by what comes to the doors: every request of every
// bridge, whatever it asks for and whatever becomes of it. [Busiest] finds the
// 60 seconds, wherever they begin, that hold the most.
//
// # What is excused
//
// The promises let a change go in these cases, and in no other:
//
// Each looks at every answer that showed the change, and at the life of the
// bridge that this one was handed to: a change is let go if all of them are
// excused, and what befell another bridge excuses nothing.
//
// Killed: the answer was handed to a process that was killed within [Case.Grace]
// of it, before it asked for that device again. Time in which the broker was
// away, the process was cut off from it or stood still does not count against
// the grace, since nothing could be stored in it. A graceful stop without a
// broker is such an end too. With the alert history the grace is longer by the
// timeout of one request, for which a fix waits.
//
// Timed out: the process stood still from the moment of the answer for so long
// that it had given the request up when it could have read it. A pause excuses
// as many changes as there are workers, and no more.
//
// Overtaken: within the grace the process stood still, or was cut off from the
// broker, and before that was over another bridge had asked about the device.
// What the first one holds is behind then, and it is not to publish it.
//
// Taken: the broker lost what it had acknowledged (it was restarted on an older
// copy of its store, or the stream was deleted), the change was first shown
// before that, shown or stored after the copy was made, and it was in the stream
// when the harness read that just before, or was shown in the moment between. Each
// device's newest state has to be there again: Stale does not know this excuse.
//
// With back-fill nothing is excused, and what the API never showed, but keeps
// in its history, has to be in the stream too. The one exception is a stream
// that was deleted: there is no gap to fill where nothing was published before.
//
// Inbound: what the stream accepted is lost if it was neither posted nor
// dead-lettered, reordered if a post of it came after that of a message of the
// same device that is behind it in the stream. A message may be posted again
// where the API did not tell that it had accepted it; where the process was
// killed within the grace; where it then stood still or was cut off for so long
// that another bridge had the lease. Each of these excuses as many posts as
// there are inbound workers, and a broker that is killed within a second may have
// forgotten what it acknowledged. Removals are another matter: nats-server 2.15.2 that is
// killed forgets some that are minutes old, and holds the messages again, so that the
// next bridge posts them. The harness follows the audit of the JetStream API, and
// excuses such a post if the removal was acknowledged and the broker was away since. A post that stood still with its process, on its
// way to the API, may also come late.
package harness
