//go:build unix

package preflight

import (
	"os"
	"path/filepath"
	"syscall"
)

// inUse reports whether another process holds the embedded server's store. It
// holds the lock itself for no longer than it takes to ask.
func inUse(dir string) bool {
	f, err := os.Open(filepath.Join(dir, ".lock"))
	if err != nil {
		return false
	}
	defer f.Close()
	return syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) == syscall.EWOULDBLOCK
}

// available is how many bytes a folder's disk has for this user.
func available(dir string) (n uint64, known bool) {
	var st syscall.Statfs_t
	if syscall.Statfs(dir, &st) != nil {
		return 0, false
	}
	return uint64(st.Bavail) * uint64(st.Bsize), true //nolint:unconvert // other systems have other types
}
