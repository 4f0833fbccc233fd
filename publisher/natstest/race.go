//go:build race

package natstest

// parallel is small with the race detector, which makes tests compute.
const parallel = "3"
