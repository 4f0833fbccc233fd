// Package track decides which events to publish for one device. It is pure: it has no
// clock and no goroutine, and performs no I/O.
//
// # Flow
//
// A [Track] is the content of the events stream for a device: its last location, the
// alerts that are raised, and the sequences that the next events are fenced by.
// An [Image] collects it while the stream is read. [Track.Same] reports whether an
// answer of the API is the known location. [Track.Publish] plans a [Publication]: its
// steps, one event each, in the order in which they are published. [Publication.Stored]
// updates the publication's track for each stored event. In the end, that track becomes
// the device's track.
//
// # Order
//
// A location announces the alert changes that follow it, in a header. After a
// crash between the two, the next process finds the changes that the stream lacks
// and publishes them first. Then come the rows of the alert history, then the
// fixes, each with its changes.
//
// # History
//
// A row of the alert history is published once, and only if no location has its alert
// and time. The locations that count are those that the stream held when the history
// was read. Another replica may publish one before the row is stored, because the
// fence of an alert does not move while it stays raised. The row is then the only
// event with that alert and time.
//
// After a restart, the alerts that stayed raised in a location are known for the last
// one only. If other locations have times at which a gap begins or ends, all rows of
// these times count as published.
//
// # Conflicts
//
// If the stream refuses a fence because another replica has published, the rest
// of the publication is dropped, the track is read from the stream again, and the
// device is polled again: an answer that waited may be older than the stream's
// last location, whatever its dateTime says. If the stream lost data instead, and
// holds nothing newer than the track, the caller plans the same answer again. The
// fence of an alert without a location does not show a newer location, so the caller
// checks that first; see [Publication.Unfenced].
//
// An event that the stream can never take is dropped, and the others go on. The
// alerts of a location that was dropped are published without it.
//
// # Limits
//
// An alert that changed without its location, because that was too large or
// because alerts are ignored fields, is remembered as long as the events stream
// holds its event: the contract promises more for the bridge's own alert only.
//
// These are not promised, and the model leaves them out:
//
//   - A turn that takes longer than the retention. Its fences count as aged out, and
//     it may publish a change a second time.
//   - A change whose event ages out before a replica has published its successor: a
//     restart may publish it again. The retention is days, a restart seconds.
//   - The end of the stream is lost after its beginning has aged out. Then the
//     previous state of an alert is unknown, and it may be raised twice in a row.
//   - An event that is under way while the stream loses data may be stored after the
//     state was read. Its device publishes a conflict and is read again.
//   - An alert that stays raised while the history is left unread over a restart may
//     be published from the history as well, with the dateTime of its location. The
//     stream has no event of it, and reading all locations back would delay the start.
//   - A gap after a fix that was dated in the future may stay unread, because only the
//     earliest and the latest of such times are known.
package track
