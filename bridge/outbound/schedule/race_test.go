//go:build race

package schedule_test

// raced: the race detector is on, which makes these tests ten times slower and finds nothing in a
// package without a goroutine.
const raced = true
