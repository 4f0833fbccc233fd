package harness

import (
	"context"
	"fmt"
	"net"
	"os"

	"github.com/nats-io/nats.go/jetstream"
)

// Launch starts the server with further arguments and variables, each
// "NAME=value", and does not wait until it answers.
func (b *Broker) Launch(args, env []string) error {
	host, port, err := net.SplitHostPort(b.addr)
	if err != nil {
		return fmt.Errorf("nats-server: %w", err)
	}
	select {
	case <-b.ready: // of an earlier life
	default:
	}
	all := append([]string{"-a", host, "-p", port, "-js", "-sd", b.dir}, args...)
	return b.Process.Start(all, append(os.Environ(), env...))
}

// Answers waits until JetStream answers.
func (b *Broker) Answers(ctx context.Context) error { return b.back(ctx) }

// Store is the folder of the store.
func (b *Broker) Store() string { return b.dir }

// Close ends the client and the server, where the broker is not a rig's.
func (b *Broker) Close() { b.close() }

// Count gives the number of messages in a stream, 0 if it does not exist.
func Count(ctx context.Context, js jetstream.JetStream, stream string) (uint64, error) {
	return count(ctx, js, stream)
}

// PID is the number of the running process, 0 where none runs.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}
