// Package ops answers the questions of operators and orchestrators:
// whether it lives, whether it is ready and if not why, its metrics, and a page
// for people.
//
// [Health] collects the answers. Whoever knows something about a part of the
// bridge says so through a [Part]; whoever has a loop that must not stand still
// beats a [Heartbeat]. The two are apart on purpose: a bridge that cannot reach
// the API is not ready, but restarting it would not help, so it lives; a bridge
// whose loop hangs has to be restarted, whatever its sockets say.
//
// [Server] serves that over HTTP. The page, the feed and the profiles are
// closed to strangers. The other answers are neither secret nor personal, and the
// programs that ask for them seldom have a token. An address that sends wrong tokens
// is slowed down.
// On loopback and without a token, requests by a name with a dot are refused: it
// would be a web page's that had its own name resolve to this machine.
package ops
