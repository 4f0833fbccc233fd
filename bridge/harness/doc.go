// Package harness proves the bridge's promises from outside. It runs the real binary
// against the simulated API and a real nats-server, injects faults, and compares the
// answers of the API with the content of the streams.
//
// # Parts
//
// A [Rig] is one API, one broker and one or more bridges. The bridges and the broker are
// processes of their own, which a test kills, suspends and restarts (packages process and
// natsserver). The API is a sim.Server in this process behind real TCP (package front).
// With [Options.Linked] each bridge reaches the broker over a link that can be cut
// (package network).
//
// A [Plan] is a schedule of faults made from a seed, and [Rig.Inject] executes it.
// [Rig.Settle] waits until the bridges have caught up and stops them. Then [Rig.Report]
// returns the verdict of package judge, which defines the counts and the excuses.
package harness
