// Package memory stores the schedule's knowledge about the devices, so that it
// survives a restart and a device takes it along to another replica.
//
// The devices are spread by a hash over a fixed number of partitions, and each
// partition is one key of the replicas' bucket. A key for each device would cost
// 100,000 writes a minute for as many devices, and a key for each replica would
// stay behind when a replica does not come back under the same name. Replicas that
// have devices in the same partition merge their entries: a write names the
// revision that it was made of, and the newer entry of a device wins.
//
// A value that cannot be read counts as empty. Nothing depends on the memory: a
// schedule learns a device without one again.
package memory
