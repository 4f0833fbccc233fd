// Package quota limits how many results of the API a device may use per UTC day.
// A result is a location or an alert in an answer.
//
// [Day] is the count of one device: pure arithmetic, with the time as an
// argument. It spreads the results evenly over the day, with a head start of a
// quarter of them, so that a busy morning leaves enough for the evening.
//
// [Quota] adds the promise that holds across restarts and replicas: a result is
// reserved in a [Store] before it is asked for. Reservations are written with
// compare-and-swap and cover a thirty-second of the day's quota, so that a
// thousand polls cost 32 writes. A process that reads another's reservation
// counts all of it as used. So no two processes use the same result, even if both
// believe to own the device, and a restart loses at most the rest of one
// reservation.
//
// [Bucket] is the store in a key-value bucket of JetStream.
//
// A Day has one owner at a time; Quota and Bucket are safe for concurrent use.
package quota
