//go:build !linux

package replica

import "time"

func steady() time.Duration { return awake() }
