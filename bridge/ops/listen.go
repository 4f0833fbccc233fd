package ops

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
)

// Listen listens on a TCP address, host:port. Port 0 means any free port. The error
// says so if another program has the port.
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

// FreeAddr returns addr, or, if its port is in use, the same host with a port that
// was free a moment ago. It is for servers that open their own listener.
func FreeAddr(ctx context.Context, addr string) (string, error) {
	listener, err := ListenFree(ctx, addr)
	if err != nil {
		return "", err
	}
	if err := listener.Close(); err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	return listener.Addr().String(), nil
}

// ListenFree is Listen, but takes a free port if the port is in use. It is for
// programs that must always start, such as the demo.
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
