//go:build !unix

package embedded

import (
	"fmt"
	"os"
)

// lockDir makes the folder. There is no lock that goes with the process here.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("BRIDGE_DATA_DIR: %w", err)
	}
	return nil, nil
}

// freeBytes is unknown here.
func freeBytes(string) int64 { return -1 }
