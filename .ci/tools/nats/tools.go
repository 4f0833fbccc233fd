//go:build tools

// Package nats keeps the version of the nats CLI that the examples are run with.
package nats

import _ "github.com/nats-io/natscli/nats" // built by .ci/run
