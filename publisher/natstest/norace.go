//go:build !race

package natstest

// parallel is how many parallel tests of a package run at a time.
const parallel = "8"
