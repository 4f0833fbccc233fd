// Command latest shows where every device is: first what is known, then each
// change, out of the bucket plaspy_last. It wants NATS_URL, and NATS_USER and
// NATS_PASSWORD where the server does. -once ends it after what is known.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// location is what this program reads of a location event.
type location struct {
	DeviceID string `json:"deviceId"` // the key is the id as a token of a subject
	Location struct {
		DateTime            string
		Latitude, Longitude float64
		Speed               float64
	}
}

func main() {
	once := flag.Bool("once", false, "end when all that is known was shown")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *once); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, once bool) error {
	nc, err := nats.Connect(os.Getenv("NATS_URL"), nats.UserInfo(os.Getenv("NATS_USER"), os.Getenv("NATS_PASSWORD")), nats.MaxReconnects(-1))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	bucket, err := js.KeyValue(ctx, "plaspy_last")
	if err != nil {
		return err
	}
	watch, err := bucket.WatchAll(ctx)
	if err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case entry, ok := <-watch.Updates():
			switch {
			case !ok:
				return nil
			case entry == nil: // all that is known was shown
				if once {
					return nil
				}
				continue
			}
			var l location
			if err := json.Unmarshal(entry.Value(), &l); err != nil {
				return fmt.Errorf("entry %s: %w", entry.Key(), err)
			}
			fmt.Printf("%s  %s  %.5f,%.5f  %g km/h\n", l.DeviceID, l.Location.DateTime, l.Location.Latitude, l.Location.Longitude, l.Location.Speed)
		}
	}
}
