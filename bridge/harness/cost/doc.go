// Package cost measures what the bridge costs as a process, beside other programs
// that do the same work:
//
//	go test ./bridge/harness/cost -measure -v -timeout 60m
//
// Each measurement has a nats-server and a client as processes of their own. The
// simulated API is in the test's process, so its CPU time is in no figure. The
// clients take turns, and every figure is a ratio as well, because an absolute one
// is of one machine.
//
// # Clients
//
// [Bare] is a net/http loop that publishes changes asynchronously. At a pace it
// wakes once in 20 ms for all polls that are due. [Script] is a first version that
// works: a ticker for each device, encoding/json, and a publication that waits for
// its acknowledgement. The bridge is the real binary with its default settings, but
// for the budget and the fixed schedule, which polls at the same pace as the others;
// the load with the default budget has the adaptive one.
//
// # Columns
//
// The CPU time of the client and of nats-server is that within a window after each
// device was polled, for each poll that the API answered. Resident memory is that
// at the end of the window. The delay is from the answer of the API to the time
// that the stream gives the message.
package cost
