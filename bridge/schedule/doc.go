// Package schedule decides whom to poll next: pure policies without a clock, a goroutine or I/O.
package schedule
