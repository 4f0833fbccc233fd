//go:build linux

package machine

import (
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The words of the mapped file, as in std/syscall.go.txt.
const (
	attached = iota
	shift
	writing
	syncing
	room
	slowed
	refused
	words
)

// Control controls the clock and the disk of one program from [Build], in all its lives. It
// is safe for concurrent use.
type Control struct {
	path string
	disk string
	mem  []byte
	word *[words]int64
}

// NewControl makes a control without faults in a file of its own. The faults of the disk
// affect the files with paths that begin with disk, or no file if disk is empty. The
// caller closes it.
func NewControl(path, disk string) (*Control, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("machine: %w", err)
	}
	defer f.Close()
	if err := f.Truncate(words * 8); err != nil {
		return nil, fmt.Errorf("machine: %w", err)
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, words*8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("machine: map %s: %w", path, err)
	}
	c := &Control{path: path, disk: disk, mem: mem, word: (*[words]int64)(unsafe.Pointer(unsafe.SliceData(mem)))}
	c.Full(-1)
	return c, nil
}

// Close closes the file. A running program keeps its own mapping.
func (c *Control) Close() error { return unix.Munmap(c.mem) }

// Env returns the variables for the start of a program, each "NAME=value".
func (c *Control) Env() []string {
	return []string{"MACHINE_FAULTS=" + c.path, "MACHINE_DISK=" + c.disk}
}

// Lives returns the number of programs that have opened the control.
func (c *Control) Lives() int { return int(atomic.LoadInt64(&c.word[attached])) }

// Clock sets the wall clock ahead of the true one by whole seconds, or behind it if ahead
// is negative. 0 ends the fault.
func (c *Control) Clock(ahead time.Duration) {
	atomic.StoreInt64(&c.word[shift], int64(ahead/time.Second))
}

// Slow delays every write and every sync.
func (c *Control) Slow(write, sync time.Duration) {
	atomic.StoreInt64(&c.word[writing], int64(write))
	atomic.StoreInt64(&c.word[syncing], int64(sync))
}

// Full limits the bytes that can still be written. A negative number ends the fault.
func (c *Control) Full(left int64) { atomic.StoreInt64(&c.word[room], left) }

// Slowed returns the number of delayed writes and syncs.
func (c *Control) Slowed() int { return int(atomic.LoadInt64(&c.word[slowed])) }

// Refused returns the number of writes that failed for lack of room.
func (c *Control) Refused() int { return int(atomic.LoadInt64(&c.word[refused])) }
