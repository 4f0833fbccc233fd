//go:build !unix

package cpu

import "time"

// Used returns 0: it is not implemented for this system.
func Used() time.Duration { return 0 }
