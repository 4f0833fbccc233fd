// Package replica divides the devices and the request budget among the bridges
// that share a prefix on one NATS. Replicas know each other through a
// key-value bucket alone:
//
//	group.member.<id>.<nonce>  one process: that it lives, which plan it obeys, what it has to do, digests of what it was told
//	group.plan                 who shares the work, and how many requests a minute each may send
//	group.throttle             the last throttling that one of them saw
//
// # Lease
//
// A replica renews its own key at the revision that it last wrote. Its lease
// runs for three quarters of [Options.Lease] from when it sent a renewal that
// succeeded. Who sees the same revision for the whole of that time evicts its
// writer by writing the key at exactly that revision: that fails if the
// replica is alive after all, and if it succeeds, every renewal fails from
// then on. No clock is compared with another one, nothing hangs on what the
// server expires, and a process that was stopped knows by its own clock that
// it may not act any more.
//
// # Plan
//
// One of the living, which one does not matter, writes the plan, at the
// revision that it has read. A plan leaves nobody out who has not left or been
// evicted, so whoever is not in it has stopped. A device belongs to the member
// with the highest hash of both.
//
// Everyone obeys a new plan in two steps. At once it lets go of what the plan
// gives to others, and then acknowledges the plan in its own key. What the plan
// gives it, it takes up when all members have acknowledged. So at every instant
// no device has two owners and the shares add up to no more than the limit.
// The next plan waits until the last one is acknowledged, unless somebody is
// gone.
//
// # Budget
//
// A share that is given up is not taken up in the same plan. Between the two
// lies a pause, [pause], in which the whole sends less than it may: requests
// are whole, so at a hand-over each replica may be one ahead of its even pace,
// and the pause makes room for these within every sliding minute.
//
// Shares are in proportion to the polls and posts that each one would send, see
// [Options.Load].
//
// # Concurrency
//
// One goroutine, that of [Group.Run], owns all state and calls
// [Options.OnChange]; what it asks of the server runs beside it. The other
// methods are safe for concurrent use and do not block.
package replica
