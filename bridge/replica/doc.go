// Package replica divides the devices, the request budget and the posts among the
// bridges that share a prefix on one NATS. Replicas know each other through a
// key-value bucket alone:
//
//	group.member.<id>.<nonce>  one process: that it lives, which plan it obeys, its load, digests of its settings
//	group.plan                 which replicas share the work, the requests a minute of each, and which one posts
//	group.throttle             the last throttling that one of them saw
//
// # Lease
//
// A replica renews its own key at the revision that it last wrote. Its lease
// runs for three quarters of [Options.Lease] from when it sent a renewal that
// succeeded. A replica that sees the same revision of another one's key for the
// whole of that time evicts its owner by writing the key at exactly that revision.
// The write fails if the owner is alive after all. If it succeeds, every renewal
// fails from then on. No clock is compared with another one, nothing depends on
// when the server expires a key, and a process that was stopped knows by its own
// clock that its rights have ended.
//
// # Plan
//
// One of the living replicas, no matter which, writes the plan, at the revision
// that it has read. A plan leaves out only members that have left or were evicted,
// so a replica that is not in it has stopped. A device belongs to the member with
// the highest hash of both, see package rendezvous.
//
// All obey a new plan in two steps. At once each gives up the devices that the plan
// assigns to others, and then acknowledges the plan in its own key. It takes up its
// new devices when all members have acknowledged. So at every instant no device has
// two owners and the shares add up to no more than the limit. The next plan waits
// until the last one is acknowledged, unless a member is gone.
//
// # Budget
//
// A share that is given up is not taken up in the same plan. Between the two
// lies a pause, [pause], in which the group sends less than it may: requests
// are whole, so at a hand-over each replica may be one ahead of its even pace,
// and the pause makes room for these within every sliding minute.
//
// Shares are in proportion to the polls and posts that each replica would send, see
// [Options.Load]. If there are more replicas than requests a minute, some stand by,
// see [Group.Standby].
//
// # Posting seat
//
// The plan names one member that posts inbound messages, of those that consume
// ([Options.Consumes]) and have a share. The seat moves in the same two steps as
// devices. Its new holder waits for one more thing: a member that may still have
// posts in flight says so in its key, also after it has left, until they are
// answered and recorded ([Group.ReleasePosts]) or its lease has run out. So a
// replica that is told to stop gives up its devices at once and keeps the seat for
// as long as that takes. One that cannot reach the API ([Load.NoAPI]) loses the seat
// to one that can.
//
// Versions before the posting seat have a lease of their own for it, under the key
// "inbound". While one of them lives, or that lease may be held, this version does
// not post: in a rolling upgrade the old version posts until its last replica has
// stopped. For a downgrade, stop all replicas of this version first.
//
// # Concurrency
//
// One goroutine, that of [Group.Run], owns all state and calls
// [Options.OnChange]. Requests to the server run beside it. The other methods are
// safe for concurrent use and, but for [Group.AwaitPosts], do not block.
package replica
