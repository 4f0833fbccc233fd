// Command replay shows the locations of the last hour, or of -since, of all
// devices or of -device, in order, and ends. It wants NATS_URL, and NATS_USER
// and NATS_PASSWORD where the server does.
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
)

func main() {
	since := flag.Duration("since", time.Hour, "how far back to begin")
	device := flag.String("device", "*", "one device's token, as in its subject")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, time.Now().Add(-*since), *device); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, from time.Time, device string) error {
	nc, err := nats.Connect(os.Getenv("NATS_URL"), nats.UserInfo(os.Getenv("NATS_USER"), os.Getenv("NATS_PASSWORD")), nats.MaxReconnects(-1), nats.Timeout(30*time.Second))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	// An ordered consumer leaves nothing behind at the server and begins again
	// by itself where a connection was lost.
	consumer, err := js.OrderedConsumer(ctx, "PLASPY_EVENTS", jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{"plaspy.location." + device},
		DeliverPolicy:  jetstream.DeliverByStartTimePolicy,
		OptStartTime:   &from,
	})
	if err != nil {
		return err
	}
	if consumer.CachedInfo().NumPending == 0 {
		return nil
	}
	messages, err := consumer.Messages()
	if err != nil {
		return err
	}
	defer messages.Stop()
	for {
		msg, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		meta, err := msg.Metadata()
		if err != nil {
			return err
		}
		fmt.Printf("%s  %s\n", meta.Timestamp.UTC().Format(time.RFC3339), msg.Data())
		if meta.NumPending == 0 {
			return nil
		}
	}
}
