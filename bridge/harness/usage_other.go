//go:build !linux

package harness

import "errors"

// Usage is known on Linux alone.
func (p *Process) Usage() (Usage, error) {
	return Usage{}, errors.New("what a process uses is read from /proc")
}
