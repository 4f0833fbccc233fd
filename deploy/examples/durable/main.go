// Command durable handles every event, each at least once and each device's in
// order, also those that come while it is down. It needs NATS_URL, and NATS_USER
// and NATS_PASSWORD if the server requires them. -n ends it after so many events.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/deploy/examples/plaspy"
)

func main() {
	name := flag.String("name", "audit", "name of the durable consumer, which remembers what was acknowledged")
	n := flag.Int("n", 0, "end after so many events; 0 means never")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *name, *n); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, name string, n int) error {
	nc, err := nats.Connect(os.Getenv("NATS_URL"), nats.UserInfo(os.Getenv("NATS_USER"), os.Getenv("NATS_PASSWORD")), nats.MaxReconnects(-1), nats.Timeout(30*time.Second))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	// One event at a time keeps the order, also if an event is delivered again.
	consumer, err := js.CreateOrUpdateConsumer(ctx, plaspy.EventsStream, jetstream.ConsumerConfig{
		Durable: name, AckPolicy: jetstream.AckExplicitPolicy, DeliverPolicy: jetstream.DeliverNewPolicy, MaxAckPending: 1,
	})
	if err != nil {
		return err
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(1))
	if err != nil {
		return err
	}
	defer messages.Stop()
	for done := 0; n == 0 || done < n; done++ {
		msg, err := messages.Next(jetstream.NextContext(ctx))
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if err := handle(msg); err != nil {
			return fmt.Errorf("%s: %w", msg.Subject(), err)
		}
		if err := msg.DoubleAck(ctx); err != nil {
			return err
		}
	}
	return nil
}

// handle is the work. An event that comes again has the same id: store that
// together with the effect.
func handle(msg jetstream.Msg) error {
	v, err := plaspy.Decode(msg.Subject(), msg.Headers(), msg.Data())
	if err != nil {
		return err
	}
	id := plaspy.ReadMetadata(msg.Headers()).ID
	switch e := v.(type) {
	case *plaspy.LocationEvent:
		fmt.Printf("%s  %s is at %.5f,%.5f\n", id, e.DeviceID, e.Location.Latitude, e.Location.Longitude)
	case *plaspy.AlertEvent:
		fmt.Printf("%s  %s: %s %s\n", id, e.DeviceID, e.Alert, e.State)
	case *plaspy.DeviceEvent:
		fmt.Printf("%s  %s was %s\n", id, e.DeviceID, e.Change)
	}
	return nil
}
