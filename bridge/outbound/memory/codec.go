package memory

import (
	"encoding/binary"
	"hash/fnv"
	"maps"
	"slices"
	"time"
)

const (
	// version is the first byte of a partition. Another version is another layout.
	version = 1
	// partitions is the number of keys. It is part of the layout.
	partitions = 256
	// maxAge is the age at which entries of devices that no replica polls are dropped. It
	// is that of the bucket's keys.
	maxAge = 4 * 24 * time.Hour
)

// entry is the memory of one device.
type entry struct {
	stamp  uint32 // when it was taken, in seconds since 1970
	memory []byte
}

// partitionOf returns the number of a device's partition.
func partitionOf(token string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(token))
	return int(h.Sum32() % partitions)
}

// encode returns the value of a partition.
func encode(entries map[string]entry) []byte {
	b := []byte{version}
	for _, token := range slices.Sorted(maps.Keys(entries)) {
		e := entries[token]
		b = binary.AppendUvarint(b, uint64(len(token)))
		b = append(b, token...)
		b = binary.LittleEndian.AppendUint32(b, e.stamp)
		b = binary.AppendUvarint(b, uint64(len(e.memory)))
		b = append(b, e.memory...)
	}
	return b
}

// decode reads the value of a partition. ok is false, and nothing is returned, if any
// of it cannot be read.
func decode(b []byte) (entries map[string]entry, ok bool) {
	if len(b) == 0 || b[0] != version {
		return nil, false
	}
	entries = make(map[string]entry)
	for b = b[1:]; len(b) > 0; {
		var token, stamp []byte
		var e entry
		if token, b, ok = text(b); !ok || len(token) == 0 || len(b) < 4 {
			return nil, false
		}
		stamp, b = b[:4], b[4:]
		e.stamp = binary.LittleEndian.Uint32(stamp)
		if e.memory, b, ok = text(b); !ok {
			return nil, false
		}
		entries[string(token)] = e
	}
	return entries, true
}

// text cuts bytes with their length before them off.
func text(b []byte) (content, rest []byte, ok bool) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) {
		return nil, nil, false
	}
	b = b[size:]
	return b[:n:n], b[n:], true
}

// merge adds memories taken at a time to what is stored. A stored entry that is newer
// stays. Old ones are dropped.
func merge(stored map[string]entry, own map[string][]byte, at time.Time) map[string]entry {
	now := uint32(at.Unix())
	merged := make(map[string]entry, len(stored)+len(own))
	for token, e := range stored {
		if e.stamp > now || now-e.stamp <= uint32(maxAge/time.Second) {
			merged[token] = e
		}
	}
	for token, memory := range own {
		if e, there := merged[token]; there && e.stamp > now {
			continue
		}
		merged[token] = entry{now, memory}
	}
	return merged
}
