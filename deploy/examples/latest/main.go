// Command latest shows the newest location of every device and then each change,
// from the bucket plaspy_last. It needs NATS_URL, and NATS_USER and NATS_PASSWORD if
// the server requires them. -once ends it after the newest locations.
package main

import (
	"context"
	"encoding/json"
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
	once := flag.Bool("once", false, "end after the newest locations")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *once); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, once bool) error {
	nc, err := nats.Connect(os.Getenv("NATS_URL"), nats.UserInfo(os.Getenv("NATS_USER"), os.Getenv("NATS_PASSWORD")), nats.MaxReconnects(-1), nats.Timeout(30*time.Second))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	bucket, err := js.KeyValue(ctx, plaspy.LastBucket)
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
			case entry == nil: // all newest locations were shown
				if once {
					return nil
				}
				continue
			}
			var l plaspy.LocationEvent
			if err := json.Unmarshal(entry.Value(), &l); err != nil {
				return fmt.Errorf("entry %s: %w", entry.Key(), err)
			}
			speed := 0.0
			if l.Location.Speed != nil {
				speed = *l.Location.Speed
			}
			fmt.Printf("%s  %s  %.5f,%.5f  %g km/h\n", l.DeviceID, l.Location.DateTime, l.Location.Latitude, l.Location.Longitude, speed)
		}
	}
}
