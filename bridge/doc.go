// Package bridge puts the bridge together: composition,
// lifetime, readiness.
//
// # The tour
//
// [config.Load] reads the environment into a [config.Config]. [New] makes the parts and joins
// them; nothing moves yet. [Bridge.Run] lets them run until its context ends,
// then stops them in the order in which nothing is lost: no new polls, the ones
// under way end, what they found is stored, the connections are closed.
//
//	auth.Manager           one token for everything
//	plaspy.Client          the REST API, behind plaspy.Budget
//	outbound.Pool              polls, finds changes, plans with a schedule.Policy
//	inbound.Consumer       posts what arrives on the inbound subjects
//	query.Service          answers questions over NATS
//	replica.Group          divides devices and budget among replicas
//	publisher.Publisher    stores events in the stream, behind the fence
//	embedded.Server        NATS, where none is configured
//	trace.Tracer           traces of all of it, where a collector is named
//	ops.Server             health, metrics, the page
//
// The keeper watches over the streams: it creates what is missing, notices that
// the broker was away or lost what it had acknowledged, and has the pool read
// its state again.
package bridge
