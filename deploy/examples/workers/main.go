// Command workers shares the locations among as many copies of it as are
// running: each is handled by one of them, at least once, and none is missed
// while all of them are down. It wants NATS_URL, and NATS_USER and
// NATS_PASSWORD where the server does. -n ends it after so many.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func main() {
	group := flag.String("group", "reports", "name of the group, the same for each of its workers")
	n := flag.Int("n", 0, "end after so many locations; 0: never")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *group, *n); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, group string, n int) error {
	nc, err := nats.Connect(os.Getenv("NATS_URL"), nats.UserInfo(os.Getenv("NATS_USER"), os.Getenv("NATS_PASSWORD")), nats.MaxReconnects(-1))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	// The durable consumer is the group: it remembers what was acknowledged.
	consumer, err := js.CreateOrUpdateConsumer(ctx, "PLASPY_EVENTS", jetstream.ConsumerConfig{
		Durable: group, FilterSubject: "plaspy.location.*", AckPolicy: jetstream.AckExplicitPolicy, DeliverPolicy: jetstream.DeliverNewPolicy,
	})
	if err != nil {
		return err
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(10))
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
		// What comes twice has the same ce-id: store that with the work.
		fmt.Printf("%s  %s\n", msg.Headers().Get("ce-id"), msg.Data())
		if err := msg.DoubleAck(ctx); err != nil {
			return err
		}
	}
	return nil
}
