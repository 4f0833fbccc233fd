// Package publisher is the NATS side of the bridge: the connection, the
// streams and their subjects, the messages, and a publisher that stores every
// event once and in order.
//
// # The fence
//
// Every event carries the sequence that the last message of its subject is
// expected to have (Nats-Expected-Last-Subject-Sequence). The stream refuses
// an event whose author has not seen the one before it, so a second replica,
// or the same one after a pause, cannot publish out of order. The message id
// is made from subject, expected sequence and content: the same publication
// tried again has the same id, while the third change of A, B, A has another
// one than the first.
//
// # Delivery
//
// [Publisher.Publish] takes a chain of events of one device. The next one goes
// out when the one before is stored; chains of different devices run beside
// each other in a bounded window, and a full window blocks. An event without
// an answer (a timeout, a lost connection, a broker that says no) is sent
// again, unchanged: the fence makes that safe. Where the fence refuses it, the
// publisher looks at the subject's last message at the stream's leader: its own
// id means that only the answer was lost; another one is a [Conflict], which is
// the caller's to resolve. Nothing is given up on while the process runs.
//
// # The stream is the state
//
// [Publisher.State] reads back the last published events of every device, so the
// bridge keeps no cursor of its own.
package publisher
