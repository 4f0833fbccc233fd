//go:build !unix

package embedded

import (
	"fmt"
	"os"
)

// lockDir creates the folder. It takes no lock: this system has none that ends with
// the process.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("BRIDGE_DATA_DIR: %w", err)
	}
	return nil, nil
}

// freeBytes is not implemented for this system.
func freeBytes(string) int64 { return -1 }
