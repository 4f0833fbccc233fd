// Package gap reads the time between two fixes of a device: the locations that
// no poll saw (back-fill), and the alerts of the alert history.
//
// # Ranges
//
// A gap begins at the newest fix time that was published and is not in the
// future, and ends at the fix just seen; see [track.Times.Gap]. It reaches back no
// further than [Options.Max]. An answer that would be larger than the client
// accepts is asked for in halves. A gap that takes more requests or bytes than
// one turn may use is published in parts.
//
// # Failures
//
// A fix waits for its back-fill for [Options.Patience] at most. Then it is published
// without it, and so are the following fixes until the API answers again. An API
// that refuses such requests for good is asked by one device at a time, at growing
// intervals. Locations that could not be read are lost and counted.
//
// A fix waits for one request for the alert history, and is then published in any case,
// because the API may not show it again. Alerts that
// could not be read are not lost: the track keeps the time from which they are still
// to be read, and the next fix asks for them.
//
// # Concurrency
//
// A [Reader] is safe for concurrent use. A [Device] belongs to one turn at a
// time.
package gap
