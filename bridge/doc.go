// Package bridge is the composition: it makes the parts of the bridge, runs them
// and reports their health.
//
// # The tour
//
// [config.Load] reads the environment into a [config.Config]. [New] makes the
// parts in wire.go, each out of the ones before it; nothing runs yet.
// [Bridge.Run] runs them until its context is cancelled. Then it stops them so
// that nothing is lost: no new polls start, the ones in flight end, their events
// are stored, and the connections are closed.
//
//	trace.Tracer           traces of everything, if a collector is set
//	auth.Manager           one token for everything
//	plaspy.Client          the REST API, behind plaspy.Budget
//	embedded.Server        NATS, if no server is set
//	publisher.Publisher    stores events in the stream, behind the fence
//	replica.Group          divides devices and budget among replicas
//	outbound.Pool          polls, finds changes, plans with a schedule
//	inbound.Consumer       posts the messages of the inbound subjects
//	query.Service          answers questions over NATS
//	ops.Server             health, metrics, the live view
//
// The keeper watches the streams: it creates a missing one, notices that the
// broker was away or lost acknowledged data, and has the pool read its state
// again.
//
// # Health
//
// Each part has a row in the health table of health.go. /readyz, the metrics, the
// log and the live view read that table. Liveness, in liveness.go, is another
// question: whether work that is due makes progress.
package bridge
