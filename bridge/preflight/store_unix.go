//go:build unix

package preflight

import (
	"os"
	"path/filepath"
	"syscall"
)

// inUse reports whether another process has locked the embedded server's store. It
// takes the lock only briefly.
func inUse(dir string) bool {
	f, err := os.Open(filepath.Join(dir, ".lock"))
	if err != nil {
		return false
	}
	defer f.Close()
	return syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) == syscall.EWOULDBLOCK
}

// available returns the number of bytes that this user can still store in dir.
func available(dir string) (n uint64, known bool) {
	var st syscall.Statfs_t
	if syscall.Statfs(dir, &st) != nil {
		return 0, false
	}
	return uint64(st.Bavail) * uint64(st.Bsize), true //nolint:unconvert // other systems have other types
}
