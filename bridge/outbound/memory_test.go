package outbound

import (
	"testing"
	"unsafe"
)

// TestDeviceSize: the state of a device is small, because the parts that few devices need are behind pointers, and a
// block of them leaves no memory unused.
func TestDeviceSize(t *testing.T) {
	const most, page = 528, 64 << 10
	if size := unsafe.Sizeof(device{}); size > most {
		t.Errorf("a device has %d bytes, want at most %d: look for padding between its fields", size, most)
	}
	if size := unsafe.Sizeof([deviceBlock]device{}); size > page || page-size > page/100 {
		t.Errorf("a block of devices has %d bytes, want %d or little less: change its number of devices", size, page)
	}
}
