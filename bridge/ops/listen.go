package ops

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
)

// Listen listens on a TCP address, host:port. If the port is 0, the
// listener has the port that was taken. Its error names another program that has
// the port.
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("another program listens on %s already: %w", addr, err)
	case err != nil:
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	return listener, nil
}

// FreeAddr returns addr, or, if its port is taken, the same host with a port
// that was free a moment ago. For a server that wants to do its own listening.
func FreeAddr(ctx context.Context, addr string) (string, error) {
	listener, err := ListenFree(ctx, addr)
	if err != nil {
		return "", err
	}
	if err := listener.Close(); err != nil {
		return "", fmt.Errorf("look for a free port: %w", err)
	}
	return listener.Addr().String(), nil
}

// ListenFree is Listen, except that if the port is taken it takes a free one of
// the same host. It is for programs that must start beside anything, such as a
// demo.
func ListenFree(ctx context.Context, addr string) (net.Listener, error) {
	listener, err := Listen(ctx, addr)
	if !errors.Is(err, syscall.EADDRINUSE) {
		return listener, err
	}
	host, _, splitErr := net.SplitHostPort(addr)
	if splitErr != nil {
		return nil, err
	}
	return Listen(ctx, net.JoinHostPort(host, "0"))
}
