// Package harness proves the bridge's promises from outside. It runs the real binary
// against the simulated API and a real nats-server, injects faults, and compares what the
// API returned with what the streams hold.
//
// # Parts
//
// [Build] builds the two binaries. A [Rig] is one API, one broker and one or more
// bridges. The bridges and the broker are processes of their own, which a test kills,
// suspends and restarts through [Process]. The API is a sim.Server in this process behind
// real TCP. Each life of each bridge has its own [Door] to it, so that the harness knows
// which bridge received which answer. A [Link] is the network between a bridge and the
// broker. [API.Front] puts a gateway in front of the API, and [API.Freeze] freezes the
// connections to it.
//
// A [Plan] is a schedule of faults made from a seed, and [Rig.Inject] executes it.
// [Rig.Settle] waits until the bridges have caught up and stops them. Then [Rig.Report]
// returns the verdict of package judge, which defines the counts and the excuses.
package harness
