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

// The words of the mapped file, as std/syscall.go.txt has them.
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

// Control is the clock and the disk of one program that [Build] made, over all
// its lives. It is safe for concurrent use.
type Control struct {
	path string
	disk string
	mem  []byte
	word *[words]int64
}

// NewControl makes a control in a file of its own, with nothing broken. The disk
// is every file whose path begins with disk; "": none. Close it.
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

// Close lets go of the file. A program that runs keeps it.
func (c *Control) Close() error { return unix.Munmap(c.mem) }

// Env is what a program has to be started with, each "NAME=value".
func (c *Control) Env() []string {
	return []string{"MACHINE_FAULTS=" + c.path, "MACHINE_DISK=" + c.disk}
}

// Lives is how many programs have taken the control up.
func (c *Control) Lives() int { return int(atomic.LoadInt64(&c.word[attached])) }

// Clock sets the wall clock so far ahead of the true one, in whole seconds;
// negative: behind; 0: right again.
func (c *Control) Clock(ahead time.Duration) {
	atomic.StoreInt64(&c.word[shift], int64(ahead/time.Second))
}

// Slow has every write and every sync take so much longer.
func (c *Control) Slow(write, sync time.Duration) {
	atomic.StoreInt64(&c.word[writing], int64(write))
	atomic.StoreInt64(&c.word[syncing], int64(sync))
}

// Full leaves the disk so many bytes of room; negative: all it wants.
func (c *Control) Full(left int64) { atomic.StoreInt64(&c.word[room], left) }

// Slowed is how many writes and syncs were delayed.
func (c *Control) Slowed() int { return int(atomic.LoadInt64(&c.word[slowed])) }

// Refused is how many writes found no room.
func (c *Control) Refused() int { return int(atomic.LoadInt64(&c.word[refused])) }
