// Package control changes at run time which devices are polled and how often.
//
// An operator writes entries to a key-value bucket: device.<device> for one
// device, group.<group> for the devices of a group, fleet for all. An entry is a
// JSON object, which [Parse] reads. [Rules] are the entries in force at one
// moment. They resolve the settings of a device field by field: its own entry
// comes before those of its groups, and these come before the fleet's. Both are
// pure.
//
// A [Watcher] reads the bucket and hands out new rules whenever an entry was
// written, deleted, or has ended. It asks for the state of the bucket twice a
// second and reads all entries if that has changed. A watch of the bucket would
// cost less, but it does not show that an entry expired by the bucket's own TTL
// or that the bucket was deleted, and takes seconds to notice a new server.
//
// An entry that cannot be read has no effect. It is logged once, and the command
// control list shows it. While NATS cannot be reached, the entries that were read last stay in force
// until they end.
package control
