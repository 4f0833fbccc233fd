package inventory

import (
	"context"
	"sync"
)

// maxTasks is how many tasks are in work at once.
const maxTasks = 8

// tasks runs work that waits for the broker, beside the goroutine that reads the
// list: thousands of removals must not hold that up if the broker is slow.
type tasks struct {
	mu      sync.Mutex
	queue   []func()
	running int
	wg      sync.WaitGroup
}

// add queues a task. It does not block.
func (q *tasks) add(ctx context.Context, f func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.queue = append(q.queue, f)
	if q.running < maxTasks {
		q.running++
		q.wg.Go(func() { q.run(ctx) })
	}
}

// run works off the queue until it is empty or ctx has ended.
func (q *tasks) run(ctx context.Context) {
	for {
		q.mu.Lock()
		if len(q.queue) == 0 || ctx.Err() != nil {
			q.running--
			q.mu.Unlock()
			return
		}
		f := q.queue[0]
		q.queue[0], q.queue = nil, q.queue[1:]
		q.mu.Unlock()
		f()
	}
}

func (q *tasks) wait() { q.wg.Wait() }
