// Package replica divides the devices, the request budget and the posts among the
// bridges that share a prefix on one NATS. Replicas communicate only through a
// key-value bucket:
//
//	group.member.<id>.<nonce>  one process: its lease, the plan that it obeys, its load, digests of its settings
//	group.plan                 the replicas that share the work, the requests a minute of each, and the one that posts
//	group.throttle             the last throttling by the API
//
// # Lease
//
// A replica renews its own key at the revision that it last wrote. Its lease runs
// for three quarters of [Options.Lease], counted from the sending of a renewal that
// succeeded. If another replica sees the same revision of a key for the whole of
// [Options.Lease], it evicts the owner by writing the key at exactly that revision.
// The write fails if the owner is alive after all. If it succeeds, every renewal
// fails from then on. Clocks of different machines are never compared, nothing
// depends on when the server expires a key, and a suspended process knows by its own
// clock that its lease has ended.
//
// # Plan
//
// One of the live replicas, no matter which, writes the plan at the revision that it
// has read. A plan removes only members that have left or were evicted, so a removed
// member has stopped. A device belongs to the member with the highest hash of both,
// see package rendezvous.
//
// Replicas obey a new plan in two steps. Each gives up at once the devices that the
// plan assigns to others. When the work in flight for them has ended ([InFlight]), it
// acknowledges the plan in its own key. It takes up its new devices when all members
// have acknowledged. So at every instant no device has two owners, and the shares add
// up to no more than the limit. The next plan waits until the last one is acknowledged,
// unless a member is gone.
//
// If the plan's key is deleted or another program writes it, a member that knows the
// plan writes it again. A replica that knows no plan, or an earlier one, waits until all
// that know a later one have done so, left or been evicted.
//
// Work that lasts longer than [Options.Lease] is revoked: it goes on, but publishes
// nothing. So is the work of a replica whose lease ran out before its membership ended,
// and of one that leaves beside others. When a lease runs out, work waits until it is
// renewed or the membership ends, see [Group.Lapsed]. So no answer is published after
// one that another replica asked for later. If the bucket loses the replicas' state, all
// wait as long as a lease, and so long may work in flight take.
//
// To follow a hand-over in the code, start at coordinate (coordinate.go), which drafts
// the next plan (package plan). Every member obeys it and acknowledges it (membership.go),
// calls the change of [Group.Run], and takes up its new devices in agree.
//
// # Budget
//
// A share that is given up is not taken up in the same plan. Between the two plans
// is a pause, in which the group sends less than the limit. Requests are whole, so
// at a hand-over each replica may be one ahead of its even pace. The pause makes up
// for these within every sliding minute.
//
// Shares are in proportion to the load of each replica, see [Load]. If there
// are more replicas than requests a minute, some are on standby, see
// [Group.Standby].
//
// # Posting seat
//
// The plan names one member that posts inbound messages, out of those that consume
// ([Options.Consumes]) and have a share. The seat moves in the same two steps as
// devices. In addition, its new holder waits for posts in flight. A member reports
// in its key that it may have some, also after it has left, until they are answered and
// recorded ([Group.ReleasePosts]) or its lease has run out. So a stopping replica
// gives up its devices at once, and the seat after its last post. A member that
// cannot reach the API ([Load.NoAPI]) loses the seat to one that can.
//
// Versions before the posting seat have a separate lease for posts, under the key
// "inbound". While such a replica is alive, or that lease may be held, this version
// does not post. In a rolling upgrade the old version posts until its last replica
// has stopped. For a downgrade, stop all replicas of this version first.
//
// # Concurrency
//
// The goroutine of [Group.Run] owns all state and calls its arguments. Requests
// to the server run concurrently. The other methods are safe for concurrent use and,
// except for [Group.AwaitPosts], do not block.
package replica
