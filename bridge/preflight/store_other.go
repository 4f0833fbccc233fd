//go:build !unix

package preflight

// inUse cannot be told: the embedded server takes no lock here.
func inUse(string) bool { return false }

// available cannot be told without a system call of its own for each system.
func available(string) (n uint64, known bool) { return 0, false }
