// Package streams keeps the streams and buckets of a bridge usable while it runs.
//
// [Keeper.Run] looks at them once a second. It creates a missing stream, and
// reports one that has other settings than the bridge would set. It notices when
// the events stream no longer holds all acknowledged events, so that each device is
// compared with the stream again; [publisher.Compare] decides that. It restarts an
// embedded server that has stopped storing, and moves the connection to another
// server of a cluster if the present one is cut off from the others.
package streams
