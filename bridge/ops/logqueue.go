package ops

import (
	"bytes"
	"io"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Bounds of a [LogQueue]: many times the log of a busy second.
const (
	logQueueLines = 8192
	logQueueBytes = 8 << 20
	logBatchBytes = 64 << 10
)

// LogQueue is an [io.Writer] in front of a log reader that may stall or close. Write
// puts a line into a bounded queue and never blocks. One goroutine, Run, writes the
// lines in order. A line is dropped and counted if the queue is full or the write
// fails. Make it with [NewLogQueue].
type LogQueue struct {
	out     io.Writer
	lines   chan []byte
	size    atomic.Int64 // bytes in lines
	dropped atomic.Uint64
	closing chan struct{}
	written chan struct{} // closed when Run has written the last line
}

// NewLogQueue makes a queue in front of a writer.
func NewLogQueue(out io.Writer) *LogQueue {
	return &LogQueue{
		out: out, lines: make(chan []byte, logQueueLines), closing: make(chan struct{}), written: make(chan struct{}),
	}
}

// Write takes a copy of one line. It never blocks and returns no error. It is
// safe for concurrent use.
func (q *LogQueue) Write(line []byte) (int, error) {
	if q.size.Add(int64(len(line))) <= logQueueBytes {
		select {
		case q.lines <- bytes.Clone(line):
			return len(line), nil
		default:
		}
	}
	q.size.Add(-int64(len(line)))
	q.dropped.Add(1)
	return len(line), nil
}

// Run writes lines until [LogQueue.Close]. After lines were dropped, it calls note
// with their number as soon as a line can be written again; note may log. It blocks
// while the reader stalls.
func (q *LogQueue) Run(note func(dropped uint64)) {
	defer close(q.written)
	var noted uint64
	for {
		select {
		case line := <-q.lines:
			q.write(line)
			if dropped := q.dropped.Load(); dropped > noted && len(q.lines) < logQueueLines/2 {
				note(dropped - noted)
				noted = dropped
			}
		case <-q.closing:
			for len(q.lines) > 0 {
				q.write(<-q.lines)
			}
			return
		}
	}
}

// write writes a line together with those behind it, so that a burst takes few
// system calls.
func (q *LogQueue) write(line []byte) {
	lines := uint64(1)
	for batch := true; batch && len(line) < logBatchBytes; {
		select {
		case next := <-q.lines:
			line = append(line, next...)
			lines++
		default:
			batch = false
		}
	}
	q.size.Add(-int64(len(line)))
	if _, err := q.out.Write(line); err != nil {
		q.dropped.Add(lines)
	}
}

// Close ends Run after the queued lines. It waits for a limited time, so that a
// stalled reader does not keep the process from ending. Lines that are written later
// are dropped. Call it once.
func (q *LogQueue) Close(within time.Duration) {
	close(q.closing)
	select {
	case <-q.written:
	case <-time.After(within):
	}
}

// Dropped returns the number of lines that were dropped.
func (q *LogQueue) Dropped() uint64 { return q.dropped.Load() }

// Collector returns the metric of the dropped lines.
func (q *LogQueue) Collector() prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "plaspy_bridge_log_lines_dropped_total",
		Help: "Log lines that were dropped because the log reader stalled or closed.",
	}, func() float64 { return float64(q.Dropped()) })
}
