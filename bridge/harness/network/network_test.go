package network_test

import (
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"plaspy-bridge/bridge/harness/network"
	"plaspy-bridge/publisher/natstest/loopback"
)

// ok fails the test on an error.
func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// joined returns both ends of a connection through an address to a listener.
func joined(t *testing.T, addr string, l net.Listener) (near, far net.Conn) {
	t.Helper()
	near, err := net.Dial("tcp", addr) //nolint:noctx // to loopback
	ok(t, err)
	t.Cleanup(func() { _ = near.Close() })
	far, err = l.Accept()
	ok(t, err)
	t.Cleanup(func() { _ = far.Close() })
	return near, far
}

// TestLink cuts a link in both ways. Bytes that were held back arrive after Restore, a
// reset arrives at once, and later bytes pass.
func TestLink(t *testing.T) {
	t.Parallel()
	far, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // listens at once or not at all
	ok(t, err)
	t.Cleanup(func() { ok(t, far.Close()) })
	addr, err := new(loopback.Ports).Take(t.Context())
	ok(t, err)
	link, err := network.NewLink(t.Context(), addr, far.Addr().String())
	ok(t, err)
	t.Cleanup(link.Close)

	join := func() (near, other net.Conn) { return joined(t, addr, far) }
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
		t.Errorf("a byte passed while the link was cut, %v", err)
	}
	link.Restore()
	carried(other, "held")
	carried(near, "back")

	link.Reset()
	for _, c := range []net.Conn{near, other} {
		ok(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a connection works on a link that was reset")
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

// TestFreeze freezes a connection: neither side receives anything more, and a new
// connection works.
func TestFreeze(t *testing.T) {
	t.Parallel()
	tcp, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // listens at once or not at all
	ok(t, err)
	l := &network.Listener{Listener: tcp}
	t.Cleanup(func() { ok(t, l.Close()) })
	join := func() (near, far net.Conn) { return joined(t, tcp.Addr().String(), l) }
	received := func(c net.Conn) string {
		b := make([]byte, 1)
		n, _ := c.Read(b) // an error means that nothing was received
		return string(b[:n])
	}
	near, far := join()
	read := make(chan string, 1)
	go func() { read <- received(far) }()
	l.Freeze()
	_, err = io.WriteString(near, "a")
	ok(t, err)
	_, err = io.WriteString(far, "b")
	ok(t, err)
	ok(t, near.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
	if got := received(near); got != "" {
		t.Errorf("a frozen connection delivered %q", got)
	}
	if !network.Frozen(far) {
		t.Error("the connection is not frozen")
	}
	ok(t, far.Close())
	if got := <-read; got != "" {
		t.Errorf("a frozen connection received %q", got)
	}
	near, far = join()
	if network.Frozen(far) {
		t.Error("a new connection is frozen")
	}
	_, err = io.WriteString(near, "c")
	ok(t, err)
	if got := received(far); got != "c" {
		t.Errorf("a new connection received %q, want c", got)
	}
}
