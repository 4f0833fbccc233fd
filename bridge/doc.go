// Package bridge is the composition: it makes the parts of the bridge, runs them
// and reports their health.
//
// # The tour
//
// [config.Load] reads the environment into a [config.Config]. [New] makes the
// parts with the open methods, most of them in wire.go, each out of the parts
// before it:
//
//	trace.Tracer          traces of polls, posts and queries, if a collector is set
//	auth.Manager          the API token that all requests share
//	plaspy.Client         the REST API, behind plaspy.Budget and two plaspy.Circuits
//	embedded.Server       NATS, if NATS_URL is not set
//	publisher.Conn        the connection to NATS
//	publisher.Publisher   stores events in the stream, fenced by sequences
//	streams.Keeper        creates streams and buckets, and watches them
//	replica.Group         divides devices, budget and posts among replicas
//	outbound.Pool         polls devices by a schedule.Schedule and publishes changes
//	inbound.Consumer      posts the messages of the inbound subjects
//	control.Watcher       applies settings that change at run time
//	query.Service         answers requests over NATS
//	ops.Server            health, metrics, view.View and feed.Feed over HTTP
//
// The embedded server and the connection to NATS start there, and the listener is
// open. [Bridge.Run] runs everything else until its context is cancelled.
//
// # From a poll to an event
//
// The group assigns devices to this replica. When the budget admits a request, the
// pool asks the schedule for a device and the client for its last location, and
// compares the answer with the device's track, which is the content of the events stream
// for that device. It passes a change to the publisher, which stores it in the stream. To
// follow the code, start at dispatch in package outbound, whose doc names the functions
// in order.
//
// # From a message to a post
//
// One replica has the posting seat. Its consumer reads the inbound stream, posts the
// messages of each device in order through the same client and budget, stores the
// result or the dead letter, and deletes the message. To follow the code, start at
// [inbound.Consumer.Run], and see the doc of package inbound.
//
// # From one replica to another
//
// The group calls assign in wire.go with each new assignment. It passes the devices to the
// pool ([outbound.Pool.Reassign]), which returns the turns in flight of the devices that
// were taken away. The other replica polls these devices when the turns have ended. To
// follow the code, see the docs of packages replica and outbound.
//
// # Losses
//
// When the keeper finds that the broker was away, or that the events stream lost
// acknowledged events, the pool compares every device with the stream again.
//
// # Stopping
//
// The polls and the posts end first: none starts, and those in flight have half of
// the shutdown timeout. Then the publisher drains, the remaining traces are
// exported, and the parts are closed in the reverse order.
//
// # Health
//
// Each part has a row in the health table of health.go. /readyz, the metrics, the
// log and the live view show that table. Liveness, in liveness.go, answers another
// question: whether work that is due makes progress.
//
// # Words
//
//	fix          a device's report of its position at a time; a location is a fix with its other fields
//	poll         one request for a device's last location; a turn is the poll and the publication of its events
//	lap          the time in which the request budget polls every device once
//	share        the part of the budget that one replica has
//	lease        the time for which a replica may work without renewing its key
//	plan         the list of replicas that divide the devices; each acknowledges it before it takes up its share
//	posting seat the right of one replica to post inbound messages
//	fence        the sequence that a subject's last event must have, or the stream refuses the next one
//	chain        the events of one publication, stored in order; it ends with a conflict if the fence refuses one
//	lane         the inbound messages of one device, posted one after the other
//	gap          the fixes between two polls that back-fill reads from the API
package bridge
