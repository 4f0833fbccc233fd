// Package ops is what an operator and an orchestrator ask a running bridge:
// whether it lives, whether it is ready and if not why, its metrics, and a page
// for people.
//
// [Health] collects the answers. Whoever knows something about a part of the
// bridge says so through a [Part]; whoever has a loop that must not stand still
// beats a [Heartbeat]. The two are apart on purpose: a bridge that cannot reach
// the API is not ready, but restarting it would not help, so it lives; a bridge
// whose loop hangs has to be restarted, whatever its sockets say.
//
// [Server] serves that over HTTP. Only the page can be closed to strangers: what
// the other addresses tell is neither secret nor personal, and the programs that
// ask for it seldom have a token. Who tries wrong tokens is slowed down by address.
// On loopback and without a token, requests by a name with a dot are refused: it
// would be a web page's that had its own name resolve to this machine.
package ops
