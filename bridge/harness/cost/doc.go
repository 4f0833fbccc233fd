// Package cost measures the cost of the bridge as a process beside other programs that do
// the same work:
//
//	go test ./bridge/harness/cost -measure -v -timeout 60m
//
// Each measurement has a nats-server and a client as processes of their own. The
// simulated API is in the test's process, so no figure includes its CPU time. The
// clients take turns. Every figure is also a ratio, because the absolute ones depend on
// the machine.
//
// # Clients
//
// [Bare] is a net/http loop that publishes changes asynchronously. At a pace it
// wakes once in 20 ms for all polls that are due. [Script] is a simple first version: a
// ticker for each device, encoding/json, and a publication that waits for its
// acknowledgement. The bridge is the real binary with its default settings, except for the
// budget and the fixed schedule, which polls at the same pace as the others. The load with
// the default budget has the adaptive schedule.
//
// # Columns
//
// The CPU time of the client and of nats-server is used within a window that begins when
// each device was polled. It is divided by the number of polls that the API answered.
// Switches are how often threads of the client went to sleep; unlike CPU time, their
// number hardly depends on other work of the machine. The resident memory is that at the
// end of the window. The delay is the time from the answer
// of the API to the timestamp of the message in the stream.
package cost
