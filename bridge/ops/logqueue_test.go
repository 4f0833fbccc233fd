package ops_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"plaspy-bridge/bridge/ops"
)

// reader is the reader of a log, which can be made to stall or to refuse.
type reader struct {
	mu    sync.Mutex
	got   bytes.Buffer
	stall chan struct{} // Write blocks until it is closed
	err   error
}

func (r *reader) Write(p []byte) (int, error) {
	if r.stall != nil {
		<-r.stall
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return 0, r.err
	}
	return r.got.Write(p)
}

func TestLogQueueKeepsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &reader{}
		q := ops.NewLogQueue(out)
		go q.Run(func(n uint64) { t.Errorf("%d lines dropped", n) })
		var want strings.Builder
		line := make([]byte, 0, 32)
		for i := range 1000 {
			line = fmt.Appendf(line[:0], "line %d\n", i) // the same array each time, as a handler has it
			want.Write(line)
			if n, err := q.Write(line); n != len(line) || err != nil {
				t.Fatalf("Write: %d, %v", n, err)
			}
			if i%100 == 0 {
				synctest.Wait()
			}
		}
		q.Close(time.Second)
		if out.got.String() != want.String() {
			t.Errorf("got %d bytes, want %d", out.got.Len(), want.Len())
		}
	})
}

func TestLogQueueOfAStalledReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &reader{stall: make(chan struct{})}
		q := ops.NewLogQueue(out)
		var noted uint64
		go q.Run(func(n uint64) { noted += n; _, _ = fmt.Fprintf(q, "%d lines were dropped\n", n) })
		begun := time.Now()
		const lines = 30_000
		for range lines {
			if _, err := q.Write([]byte("a line\n")); err != nil {
				t.Fatal(err)
			}
		}
		dropped := q.Dropped()
		if time.Since(begun) != 0 || dropped == 0 {
			t.Errorf("%d dropped after %v, want some at once", dropped, time.Since(begun))
		}
		close(out.stall)
		synctest.Wait()
		if noted != dropped || !strings.HasSuffix(out.got.String(), fmt.Sprintf("\n%d lines were dropped\n", dropped)) {
			t.Errorf("noted %d, want %d", noted, dropped)
		}
		if got := strings.Count(out.got.String(), "a line\n"); uint64(got) != lines-dropped {
			t.Errorf("%d lines arrived, want %d", got, lines-dropped)
		}
		q.Close(time.Second)
	})
}

func TestLogQueueBoundsMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &reader{stall: make(chan struct{})}
		q := ops.NewLogQueue(out)
		go q.Run(func(uint64) {})
		long := bytes.Repeat([]byte("x"), 1<<20)
		for range 100 {
			_, _ = q.Write(long)
		}
		synctest.Wait()
		if dropped := q.Dropped(); dropped < 90 {
			t.Errorf("%d of 100 lines of 1 MiB were dropped, want nearly all", dropped)
		}
		close(out.stall)
		q.Close(time.Second)
	})
}

func TestLogQueueEndsWithinABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &reader{stall: make(chan struct{})}
		q := ops.NewLogQueue(out)
		go q.Run(func(uint64) {})
		_, _ = q.Write([]byte("a line\n"))
		synctest.Wait()
		begun := time.Now()
		q.Close(time.Second)
		if took := time.Since(begun); took != time.Second {
			t.Errorf("Close took %v", took)
		}
		close(out.stall) // or the bubble would not end
	})
}

func TestLogQueueCountsRefusedLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &reader{err: errors.New("broken pipe")}
		q := ops.NewLogQueue(out)
		go q.Run(func(uint64) {})
		for range 3 {
			_, _ = q.Write([]byte("a line\n"))
			synctest.Wait()
		}
		q.Close(time.Second)
		if got := q.Dropped(); got != 3 {
			t.Errorf("%d dropped, want 3", got)
		}
	})
}

func BenchmarkLogQueue(b *testing.B) {
	q := ops.NewLogQueue(&reader{})
	go q.Run(func(uint64) {})
	defer q.Close(time.Second)
	line := []byte(strings.Repeat("x", 200))
	b.ReportAllocs()
	for b.Loop() {
		_, _ = q.Write(line)
	}
}
