package inbound

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/publisher"
)

// Bounds of what [Origins] remembers.
const (
	originsTTL       = 24 * time.Hour
	originsPerDevice = 64
	originsInAll     = 1 << 16
	// The API may write a time or a position in another way than it was given.
	samePlace = 1e-6 // degrees, about a tenth of a metre
	sameTime  = time.Millisecond
)

// Origins remembers what was posted, so that a location that comes back through
// the API can be told from one of the device's own. It remembers for a day, at
// most 64 locations of a device and 65,536 in all, the newest ones. It is safe
// for concurrent use.
//
// What other replicas posted, and what this one did before it was started
// again, it reads from the stream of results ([Origins.Run]). A location that
// comes back before its result is stored, by another replica's poll or across a
// crash, is not recognized.
type Origins struct {
	mu      sync.Mutex
	devices map[string][]posting // by token, oldest first
	order   []string             // tokens, one entry for each posting, oldest first
}

type posting struct {
	fix
	added time.Time
}

// NewOrigins makes an empty memory.
func NewOrigins() *Origins { return &Origins{devices: make(map[string][]posting)} }

// Posted reports whether a fix of a device, by its token, is one that the bridge
// posted.
func (o *Origins) Posted(deviceToken string, fixTime time.Time, lat, lon float64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	f := fix{fixTime, lat, lon}
	for _, p := range o.devices[deviceToken] {
		if p.same(f) && time.Since(p.added) < originsTTL {
			return true
		}
	}
	return false
}

func (o *Origins) add(token string, f fix) {
	o.mu.Lock()
	defer o.mu.Unlock()
	list := o.devices[token]
	for i := range list {
		if list[i].same(f) {
			list[i].added = time.Now()
			return
		}
	}
	if len(list) == originsPerDevice {
		// Its place in order stays: the entries of a device are alike, and each
		// stands for the oldest.
		copy(list, list[1:])
		list[len(list)-1] = posting{f, time.Now()}
		return
	}
	o.devices[token] = append(list, posting{f, time.Now()})
	o.order = append(o.order, token)
	if len(o.order) > originsInAll {
		o.forget()
	}
}

// forget drops the oldest posting of the device that posted longest ago. o.mu is
// held.
func (o *Origins) forget() {
	token := o.order[0]
	o.order = o.order[1:]
	if list := o.devices[token]; len(list) > 1 {
		o.devices[token] = append(list[:0:0], list[1:]...)
	} else {
		delete(o.devices, token)
	}
}

func (f fix) same(g fix) bool {
	return f.at.Sub(g.at).Abs() < sameTime && math.Abs(f.lat-g.lat) < samePlace && math.Abs(f.lon-g.lon) < samePlace
}

// String writes a fix as [HeaderPosted] has it.
func (f fix) String() string {
	return f.at.UTC().Format(time.RFC3339Nano) + " " + strconv.FormatFloat(f.lat, 'f', -1, 64) + " " + strconv.FormatFloat(f.lon, 'f', -1, 64)
}

func parseFix(s string) (fix, error) {
	parts := strings.Fields(s)
	if len(parts) != 3 {
		return fix{}, errors.New("posted fix has not three parts")
	}
	at, timeErr := time.Parse(time.RFC3339Nano, parts[0])
	lat, latErr := strconv.ParseFloat(parts[1], 64)
	lon, lonErr := strconv.ParseFloat(parts[2], 64)
	return fix{at, lat, lon}, errors.Join(timeErr, latErr, lonErr)
}

// Run follows the stream of results until ctx ends: first what was posted in the
// last day, then what all replicas post. It reads headers only.
func (o *Origins) Run(ctx context.Context, js jetstream.JetStream, subjects publisher.Subjects, log *slog.Logger) {
	since, pause := time.Now().Add(-originsTTL), time.Second
	for ctx.Err() == nil {
		began := time.Now()
		err := o.follow(ctx, js, subjects, since)
		if ctx.Err() != nil {
			return
		}
		log.Debug("results cannot be followed", "err", err)
		since = began.Add(-time.Minute)
		sleep(ctx, pause)
	}
}

func (o *Origins) follow(ctx context.Context, js jetstream.JetStream, subjects publisher.Subjects, since time.Time) error {
	c, err := js.OrderedConsumer(ctx, subjects.Results(), jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{subjects.Result(string(Location), "*")},
		DeliverPolicy:  jetstream.DeliverByStartTimePolicy, OptStartTime: &since, HeadersOnly: true,
	})
	if err != nil {
		return fmt.Errorf("follow results: %w", err)
	}
	it, err := c.Messages(jetstream.PullMaxMessages(256))
	if err != nil {
		return fmt.Errorf("follow results: %w", err)
	}
	defer it.Stop()
	defer context.AfterFunc(ctx, it.Stop)()
	for {
		msg, err := it.Next()
		if err != nil {
			return fmt.Errorf("follow results: %w", err)
		}
		value := msg.Headers().Get(HeaderPosted)
		if value == "" {
			continue
		}
		if f, err := parseFix(value); err == nil {
			o.add(msg.Headers().Get(publisher.HeaderSubject), f)
		}
	}
}
