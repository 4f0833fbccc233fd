package streams

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"plaspy-bridge/publisher"
)

// filler copies the locations into the bucket of last locations if the server does
// not, because an operator made the bucket without its source.
type filler struct {
	pub  *publisher.Publisher
	log  *slog.Logger
	work sync.WaitGroup
	stop context.CancelFunc
}

// start begins to fill the bucket, unless it is already running.
func (f *filler) start(ctx context.Context) {
	if f.stop != nil {
		return
	}
	ctx, f.stop = context.WithCancel(context.WithoutCancel(ctx))
	f.work.Go(func() { f.run(ctx) })
}

// wait stops the filling and waits until it has ended.
func (f *filler) wait() {
	if f.stop != nil {
		f.stop()
	}
	f.work.Wait()
}

func (f *filler) run(ctx context.Context) {
	logged := ""
	for ctx.Err() == nil {
		err := f.pub.Positions().FillLast(ctx)
		if ctx.Err() == nil && err != nil && err.Error() != logged {
			logged = err.Error()
			f.log.Warn("could not fill the bucket of last locations, retrying", "stream", f.pub.Subjects().LastBucket(), "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(reviveEvery):
		}
	}
}
