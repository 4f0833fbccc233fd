package harness_test

import (
	"io"
	"net"
	"testing"
	"time"

	"plaspy-bridge/bridge/harness"
)

// TestLink has a link cut both ways: bytes that were held back arrive when it is
// whole again, a reset is seen at once, and what comes later passes.
func TestLink(t *testing.T) {
	t.Parallel()
	far, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // listens at once or not at all
	ok(t, err)
	t.Cleanup(func() { ok(t, far.Close()) })
	addr, err := ports.Take(t.Context())
	ok(t, err)
	link, err := harness.NewLink(t.Context(), addr, far.Addr().String())
	ok(t, err)
	t.Cleanup(link.Close)

	join := func() (near, other net.Conn) {
		t.Helper()
		near, err := net.Dial("tcp", addr) //nolint:noctx // to loopback
		ok(t, err)
		t.Cleanup(func() { _ = near.Close() })
		other, err = far.Accept()
		ok(t, err)
		t.Cleanup(func() { _ = other.Close() })
		return near, other
	}
	carried := func(to net.Conn, text string) {
		t.Helper()
		ok(t, to.SetReadDeadline(time.Now().Add(10*time.Second)))
		got := make([]byte, len(text))
		if _, err := io.ReadFull(to, got); err != nil || string(got) != text {
			t.Fatalf("got %q, %v, want %q", got, err, text)
		}
	}
	send := func(from net.Conn, text string) {
		t.Helper()
		_, err := io.WriteString(from, text)
		ok(t, err)
	}

	near, other := join()
	send(near, "there")
	carried(other, "there")

	link.Drop()
	send(near, "held")
	send(other, "back")
	ok(t, other.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
	if n, err := other.Read(make([]byte, 1)); n != 0 {
		t.Errorf("a byte passed a link that is cut, %v", err)
	}
	link.Restore()
	carried(other, "held")
	carried(near, "back")

	link.Reset()
	for _, c := range []net.Conn{near, other} {
		ok(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a connection lives on a link that was reset")
		}
	}
	link.Restore()
	near, other = join()
	send(other, "again")
	carried(near, "again")

	if cuts := link.Cuts(); len(cuts) != 2 || cuts[0].To.IsZero() || cuts[1].To.IsZero() {
		t.Errorf("cuts are %v, want two that are over", cuts)
	}
}
