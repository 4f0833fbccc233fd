// Package ops serves the health of the bridge, its metrics, the live view and the feed.
//
// [Health] is the table of all states. Each part of the bridge is reported to it
// with a [State], and each loop that must make progress beats a [Heartbeat]. The two
// are separate on purpose. A bridge that cannot reach the API is not ready, but a
// restart would not help, so it is alive. A bridge with a loop that hangs has to be
// restarted, even if its connections work.
//
// [Server] serves the table over HTTP. The page, the feed and the profiles require
// BRIDGE_HTTP_TOKEN, or a request from this machine if there is none. The other
// answers are neither secret nor personal, and the programs that read them seldom
// have a token. Requests from an address that sends wrong tokens are delayed.
//
// On loopback and without a token, requests to a host name with a dot are refused.
// They would come from a web page with a name that resolves to this machine.
package ops
