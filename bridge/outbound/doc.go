// Package outbound is the outbound path: it asks the API for every device's last
// location, finds out what changed, and has it published.
//
// # Flow
//
// One dispatcher waits for a slot of the request budget, then asks the schedule
// whom to poll with it, and hands the device to a worker. The worker asks the
// API, compares the answer with what the stream holds, and gives what is new to
// the publisher as one chain: what lay in a gap (back-fill, alert history), the
// fix, then the edges of its alerts. The device goes back to the schedule when
// its chain is stored, so a change that a poll saw is in the stream before that
// device is polled again.
//
// # What is where
//
// The stream is the state. At start, and whenever the broker was away, the pool
// reads back what the stream last took for every device and compares with that;
// where a fence was refused it does so for one device. A location in the stream
// names the edges that follow it, so that what a crash cut off between the two
// is published by the next start.
//
// Package quota counts the results that each device used of its daily quota.
//
// Of a location the pool keeps hashes alone: one of the whole, which tells
// whether it changed, and four bytes for each field, which tell [Pool.Why] what
// did.
//
// # Concurrency
//
// A device is polled by one worker at a time, and busy until its chain is done.
// Its fields belong to whoever made it busy; which device is busy, the schedule
// and the set of devices are guarded by the pool's mutex. Nothing that waits is
// done under it.
package outbound
