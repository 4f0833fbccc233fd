// Package streams keeps the streams and buckets of a bridge usable while it runs.
//
// [Keeper.Run] checks the events stream once a second, and the others less often. It
// creates a missing stream, and reports one with different settings. If the
// events stream no longer holds all acknowledged events, which
// [publisher.Reader.Observe] reports, each device is compared with the stream again. It restarts an
// embedded server that has stopped storing. If the connected server of a cluster is
// cut off from the others, it moves the connection to another one.
package streams
