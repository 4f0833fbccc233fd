// Package heap measures memory in tests.
package heap

import "runtime"

// Live returns the bytes of the live heap of this process, after a collection. What
// other goroutines allocate meanwhile counts.
func Live() int64 {
	runtime.GC()
	runtime.GC() // frees what pools kept through the first one
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
