package streams

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"plaspy-bridge/publisher"
)

// filler puts the locations into their bucket if the server does not do so by
// itself, because an operator made the bucket without its source.
type filler struct {
	pub  *publisher.Publisher
	log  *slog.Logger
	work sync.WaitGroup
	stop context.CancelFunc
}

// start begins to fill the bucket, unless that is being done already.
func (f *filler) start(ctx context.Context) {
	if f.stop != nil {
		return
	}
	ctx, f.stop = context.WithCancel(context.WithoutCancel(ctx))
	f.work.Go(func() { f.run(ctx) })
}

// wait ends the filling.
func (f *filler) wait() {
	if f.stop != nil {
		f.stop()
	}
	f.work.Wait()
}

func (f *filler) run(ctx context.Context) {
	logged := ""
	for ctx.Err() == nil {
		err := f.pub.FillLast(ctx)
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
