// Package publisher is the NATS side of the bridge: the connection, the
// streams and their subjects, the messages, and a publisher that stores every
// event once and in order.
//
// # The fence
//
// Every event carries the expected sequence of the last message of its subject
// (Nats-Expected-Last-Subject-Sequence). The stream refuses an event if its publisher
// has not seen the event before it. So a second replica, or the same one after a
// pause, cannot publish out of order. The message id is made from the subject, the
// expected sequence and the content. A retry of a publication has the same id, while
// the third change of A, B, A has a different id than the first.
//
// # Delivery
//
// [Publisher.Publish] takes a chain of events of one device. Each event is sent when
// the one before it is stored. Chains of different devices run concurrently in a
// bounded window, and a full window blocks. After a timeout, a lost connection or an
// error of the broker, the event is sent again unchanged, which the fence makes safe.
// If the fence refuses an event, the publisher reads the subject's last message from
// the stream's leader. If that has the event's id, only the answer was lost. If not,
// the chain ends with a [Conflict], which the caller resolves. While the process runs,
// retries end only for an event that can never be stored ([ErrUnstorable]).
//
// # The stream is the state
//
// [Reader.State] reads back the last published events of every device, so the
// bridge keeps no cursor of its own.
package publisher
