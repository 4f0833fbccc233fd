// Command gateway hands in one location to be posted to the Plaspy API and waits
// for its result: gateway [flags] DEVICE LATITUDE LONGITUDE. It prints yes or no
// and the result. The exit status is 0 if the API took the location, 1 if it never
// will, and 3 if that is not decided yet. It needs NATS_URL, and NATS_USER and
// NATS_PASSWORD if the server requires them.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/deploy/examples/plaspy"
)

func main() {
	wait := flag.Duration("wait", 30*time.Second, "how long to wait for the result")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), *wait)
	defer cancel()
	posted, err := run(ctx, flag.Args())
	switch {
	case errors.Is(err, errUndecided):
		log.Print(err)
		os.Exit(3)
	case err != nil:
		log.Fatal(err)
	case !posted:
		os.Exit(1)
	}
}

// errUndecided means that the location is stored and will be posted or refused
// later, for example because the API does not answer at the moment.
var errUndecided = errors.New("stored, and not decided yet: the bridge goes on trying")

func run(ctx context.Context, args []string) (posted bool, err error) {
	at := time.Now().UTC()
	device, location, err := parse(args, at)
	if err != nil {
		return false, err
	}
	// Answers and results arrive below a prefix that the user gateway of nats.conf may read.
	nc, err := nats.Connect(os.Getenv("NATS_URL"), nats.UserInfo(os.Getenv("NATS_USER"), os.Getenv("NATS_PASSWORD")), nats.MaxReconnects(-1), nats.Timeout(30*time.Second),
		nats.CustomInboxPrefix(cmp.Or(os.Getenv("NATS_INBOX_PREFIX"), "_INBOX_gateway")))
	if err != nil {
		return false, err
	}
	defer nc.Close()
	inbox := nc.NewInbox()
	results, err := nc.SubscribeSync(inbox)
	if err != nil {
		return false, err
	}
	msg := nats.NewMsg(plaspy.InLocationSubject(device))
	msg.Data = location
	// If the acknowledgement is lost and the report is sent again, it has the same
	// id and is stored once.
	msg.Header.Set(nats.MsgIdHdr, device+"@"+at.Format(time.RFC3339Nano))
	msg.Header.Set("Reply-To", inbox)
	if err := store(ctx, nc, msg); err != nil {
		return false, fmt.Errorf("not stored, try again: %w", err)
	}
	return await(ctx, results)
}

// parse returns the device of the command line, and its location as JSON.
func parse(args []string, at time.Time) (device string, location []byte, err error) {
	if len(args) != 3 {
		return "", nil, errors.New("want DEVICE LATITUDE LONGITUDE")
	}
	latitude, err := strconv.ParseFloat(args[1], 64)
	if err != nil {
		return "", nil, err
	}
	longitude, err := strconv.ParseFloat(args[2], 64)
	if err != nil {
		return "", nil, err
	}
	location, err = json.Marshal(plaspy.Location{DateTime: at.Format(time.RFC3339Nano), Latitude: latitude, Longitude: longitude})
	return args[0], location, err
}

// store returns once JetStream has stored the message.
func store(ctx context.Context, nc *nats.Conn, msg *nats.Msg) error {
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	_, err = js.PublishMsg(ctx, msg, jetstream.WithRetryAttempts(5))
	return err
}

// await prints the result of a stored message. The bridge sends exactly one:
// posted, or refused and kept as a dead letter.
func await(ctx context.Context, results *nats.Subscription) (posted bool, err error) {
	msg, err := results.NextMsgWithContext(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return false, errUndecided
	}
	if err != nil {
		return false, err
	}
	var result plaspy.Result
	if err := json.Unmarshal(msg.Data, &result); err != nil {
		return false, fmt.Errorf("result: %w", err)
	}
	if result.Posted {
		fmt.Printf("yes\n%s\n", msg.Data)
	} else {
		fmt.Printf("no: %s\n%s\n", result.Reason, msg.Data)
	}
	return result.Posted, nil
}
