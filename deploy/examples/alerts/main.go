// Command alerts prints each alert from now on. It needs NATS_URL, and NATS_USER
// and NATS_PASSWORD if the server requires them. -alert selects one alert by its token,
// -n ends it after that many.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"plaspy-bridge/deploy/examples/plaspy"
)

func main() {
	name := flag.String("alert", "*", "one alert's token, as in its subject")
	n := flag.Int("n", 0, "end after so many; 0: never")
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
	// Without JetStream: alerts that are published while this program is not
	// connected are missed.
	events, err := nc.SubscribeSync(strings.TrimSuffix(plaspy.AllAlerts, "*") + name)
	if err != nil {
		return err
	}
	for done := 0; n == 0 || done < n; done++ {
		msg, err := events.NextMsgWithContext(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		var a plaspy.AlertEvent
		if err := json.Unmarshal(msg.Data, &a); err != nil {
			return fmt.Errorf("%s: %w", msg.Subject, err)
		}
		fmt.Printf("%s  %s  %s %s  %v\n", a.DateTime, a.DeviceID, a.Alert, a.State, a.Texts)
	}
	return nil
}
