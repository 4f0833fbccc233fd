// Command workers shares the locations among as many workers as are running, and
// keeps each device's in order: all locations of one device are handled by one
// worker, one after the other, each at least once.
//
//	workers -create                 make the group, once
//	workers -member w1              join the group as w1 and work until interrupted
//	workers -drop w1                take w1 out of the group, for example after it crashed
//
// A worker that is interrupted leaves the group. A worker that crashes keeps its
// share: start it again under its name, run a second one under the same name as a
// standby, or drop it.
//
// It needs NATS_URL, NATS_USER and NATS_PASSWORD if the server requires them, and
// nats-server 2.11 or later. The user must be one of the bridge's account, such as
// operator in nats.conf. -n ends it after so many locations.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/pcgroups"

	"plaspy-bridge/deploy/examples/plaspy"
)

func main() {
	var g group
	flag.StringVar(&g.name, "group", "reports", "name of the group, the same for each of its workers")
	flag.DurationVar(&g.ackWait, "ack-wait", 10*time.Second, "the longest that handling one location takes; a change of the group takes up to this long as well")
	create := flag.Bool("create", false, "make the group and end")
	partitions := flag.Uint("partitions", 32, "with -create: the most workers that the group can have; fixed from then on")
	drop := flag.String("drop", "", "take this member out of the group and end")
	member := flag.String("member", "w1", "name of this worker in the group")
	n := flag.Int("n", 0, "end after so many locations; 0 means never")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	nc, err := nats.Connect(os.Getenv("NATS_URL"), nats.UserInfo(os.Getenv("NATS_USER"), os.Getenv("NATS_PASSWORD")), nats.MaxReconnects(-1), nats.Timeout(30*time.Second))
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	if g.js, err = jetstream.New(nc); err != nil {
		log.Fatal(err)
	}
	switch {
	case *create:
		err = g.create(ctx, *partitions)
	case *drop != "":
		err = g.drop(ctx, *drop)
	default:
		err = g.work(ctx, *member, limit(*n, stop, show))
	}
	if err != nil {
		log.Fatal(err)
	}
}

// group is a partitioned consumer group: a stream of its own, filled from the
// events, in which each subject begins with a partition that the device decides.
type group struct {
	js      jetstream.JetStream
	name    string
	ackWait time.Duration
}

// create makes the group. It begins with the oldest location of the stream.
func (g group) create(ctx context.Context, partitions uint) error {
	byDevice := []pcgroups.PartitioningFilter{{Filter: plaspy.AllLocations, PartitioningWildcards: []int{1}}}
	const buffered = 10000 // that wait in the group's stream; the others wait in the events' stream
	_, err := pcgroups.CreateElastic(ctx, g.js, plaspy.EventsStream, g.name, partitions, byDevice, buffered, 0)
	return err
}

// work joins the group and handles locations until ctx is cancelled. Then it
// leaves the group, and the others take over its devices.
func (g group) work(ctx context.Context, member string, handle func(jetstream.Msg) error) error {
	if err := g.change(ctx, pcgroups.AddMembers, member); err != nil {
		return err
	}
	consume, err := pcgroups.ElasticConsume(ctx, g.js, plaspy.EventsStream, g.name, member, func(msg jetstream.Msg) {
		if err := handle(msg); err != nil {
			log.Printf("%s: %v, trying again", msg.Subject(), err)
			_ = msg.NakWithDelay(time.Second) // if this is lost, it comes again after ackWait
			return
		}
		ackCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if err := msg.DoubleAck(ackCtx); err != nil {
			log.Printf("%s: not acknowledged, comes again: %v", msg.Subject(), err)
		}
	}, jetstream.ConsumerConfig{
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       g.ackWait,
		MaxAckPending: 1, // this keeps the order: the next one is delivered after the acknowledgement
	})
	if err != nil {
		return err
	}
	select {
	case err := <-consume.Done():
		return err
	case <-ctx.Done():
	}
	consume.Stop()
	<-consume.Done() //nolint:errcheck // it was stopped
	leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return g.drop(leave, member)
}

// drop takes a member out of the group. Its consumer goes first: as long as it
// exists, no other member can have its devices.
func (g group) drop(ctx context.Context, member string) error {
	err := g.js.DeleteConsumer(ctx, plaspy.EventsStream+"-"+g.name, member)
	if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return err
	}
	return g.change(ctx, pcgroups.DeleteMembers, member)
}

// change adds or removes a member. Another member that does so at the same moment
// makes it fail, so that it tries several times.
func (g group) change(ctx context.Context, do func(context.Context, jetstream.JetStream, string, string, []string) ([]string, error), member string) (err error) {
	for range 10 {
		if _, err = do(ctx, g.js, plaspy.EventsStream, g.name, []string{member}); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return fmt.Errorf("change the members of group %s: %w", g.name, err)
}

// show is the work. A location that comes again, after a crash or while the group
// changes, has the same ce-id and the same sequence. Store the sequence with the
// effect and leave out those that are not larger: the effect is then exactly once.
func show(msg jetstream.Msg) error {
	v, err := plaspy.Decode(msg.Subject(), msg.Headers(), msg.Data())
	if err != nil {
		return err
	}
	if e, ok := v.(*plaspy.LocationEvent); ok {
		fmt.Printf("%s  %s  %s  %.5f,%.5f\n", sequence(msg), e.DeviceID, e.Location.DateTime, e.Location.Latitude, e.Location.Longitude)
	}
	return nil
}

// sequence returns the location's sequence in the events' stream.
func sequence(msg jetstream.Msg) string {
	// "PLASPY_EVENTS 42 ..." was set by the server when it filled the group's stream.
	if fields := strings.Fields(msg.Headers().Get("Nats-Stream-Source")); len(fields) > 1 {
		return fields[1]
	}
	return ""
}

// limit calls stop after n messages.
func limit(n int, stop func(), handle func(jetstream.Msg) error) func(jetstream.Msg) error {
	done := 0
	return func(msg jetstream.Msg) error {
		if n > 0 && done >= n {
			return fmt.Errorf("this worker has handled its %d locations", n)
		}
		if err := handle(msg); err != nil {
			return err
		}
		if done++; n > 0 && done == n {
			stop()
		}
		return nil
	}
}
