// Command gateway hands in one location to be posted to the Plaspy API and waits
// until it was: gateway [flags] DEVICE LATITUDE LONGITUDE. It wants NATS_URL,
// and NATS_USER and NATS_PASSWORD where the server does.
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
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func main() {
	wait := flag.Duration("wait", 30*time.Second, "how long to wait for the result")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), *wait)
	defer cancel()
	if err := run(ctx, flag.Args()); err != nil {
		log.Fatal(err)
	}
}

// token writes a device's id as one token of a subject.
func token(id string) string {
	var b strings.Builder
	for _, c := range []byte(id) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "=%02X", c)
		}
	}
	return b.String()
}

func run(ctx context.Context, args []string) error {
	if len(args) != 3 {
		return errors.New("want DEVICE LATITUDE LONGITUDE")
	}
	latitude, err := strconv.ParseFloat(args[1], 64)
	if err != nil {
		return err
	}
	longitude, err := strconv.ParseFloat(args[2], 64)
	if err != nil {
		return err
	}
	at := time.Now().UTC()
	body, err := json.Marshal(map[string]any{"dateTime": at.Format(time.RFC3339Nano), "latitude": latitude, "longitude": longitude})
	if err != nil {
		return err
	}

	// Answers and results arrive below a prefix that the user gateway of nats.conf may read.
	nc, err := nats.Connect(os.Getenv("NATS_URL"), nats.UserInfo(os.Getenv("NATS_USER"), os.Getenv("NATS_PASSWORD")), nats.MaxReconnects(-1),
		nats.CustomInboxPrefix(cmp.Or(os.Getenv("NATS_INBOX_PREFIX"), "_INBOX_gateway")))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	inbox := nc.NewInbox()
	results, err := nc.SubscribeSync(inbox)
	if err != nil {
		return err
	}
	msg := nats.NewMsg("plaspy.in.location." + token(args[0]))
	msg.Data = body
	// Tried again after a lost acknowledgement, the same report has the same
	// id and is taken once.
	msg.Header.Set(nats.MsgIdHdr, args[0]+"@"+at.Format(time.RFC3339Nano))
	msg.Header.Set("Reply-To", inbox)
	if _, err := js.PublishMsg(ctx, msg, jetstream.WithRetryAttempts(5)); err != nil {
		return fmt.Errorf("not taken, try again: %w", err)
	}
	// From here on it is the bridge's: posted, or among the dead letters.
	result, err := results.NextMsgWithContext(ctx)
	if err != nil {
		return fmt.Errorf("taken, but not posted yet: %w", err)
	}
	fmt.Printf("%s\n", result.Data)
	return nil
}
