//go:build !unix

package preflight

// inUse returns false: the embedded server takes no lock on this system.
func inUse(string) bool { return false }

// available is not implemented for this system.
func available(string) (n uint64, known bool) { return 0, false }
