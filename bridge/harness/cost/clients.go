package cost

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/publisher"
)

// Task is the work of a client that is not the bridge.
type Task struct {
	API, NATS string
	Devices   int
	Rate      float64 // polls a second; 0 means as many as possible
	// Same has the bare loop publish the headers of the bridge's messages, fence
	// included, to a server with the bridge's streams.
	Same bool
}

// deviceID returns the id of the simulator's device number i, from 0.
func deviceID(i int) string { return fmt.Sprintf("device%04d", i+1) }

// workers is the number of requests at once, as with BRIDGE_WORKERS.
const workers = 16

// subjects are those of BRIDGE_PREFIX.
const subjects publisher.Subjects = "plaspy"

// client has the connections of both programs to the API and to NATS.
type client struct {
	task Task
	http *http.Client
	js   jetstream.JetStream
}

// newClient connects and creates the events stream that the bridge would create.
func newClient(ctx context.Context, t Task) (*client, error) {
	nc, err := nats.Connect(t.NATS)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	streams := subjects.Streams(publisher.StreamOptions{Retention: time.Hour, Inbound: true})
	if !t.Same {
		streams = streams[:1]
	}
	if _, err := publisher.EnsureStreams(ctx, js, streams); err != nil {
		return nil, err
	}
	transport := &http.Transport{MaxIdleConns: workers, MaxIdleConnsPerHost: workers, MaxConnsPerHost: workers, DisableCompression: true}
	return &client{task: t, http: &http.Client{Transport: transport, Timeout: 10 * time.Second}, js: js}, nil
}

// get reads a device's answer into buf.
func (c *client) get(ctx context.Context, id string, buf *bytes.Buffer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.task.API+"/api/devices/"+id+"/lastLocation", nil)
	if err != nil {
		return fmt.Errorf("poll: %w", err)
	}
	req.Header.Set("Authorization", "Bearer token")
	res, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("poll: %w", err)
	}
	defer func() { _ = res.Body.Close() }() // it has been read
	buf.Reset()
	if _, err := buf.ReadFrom(res.Body); err != nil {
		return fmt.Errorf("poll: %w", err)
	}
	return nil
}

// slot is how often the bare loop wakes at a pace.
const slot = 20 * time.Millisecond

// Bare polls in a loop and publishes changed answers without waiting. It returns
// when ctx ends.
func Bare(ctx context.Context, t Task) error {
	c, err := newClient(ctx, t)
	if err != nil {
		return err
	}
	jobs := make(chan int, workers)
	shown := make([]shown, t.Devices) // a device has one poll at a time: the line of jobs is shorter than the fleet
	for range workers {
		go func() {
			var buf bytes.Buffer
			for i := range jobs {
				c.bare(ctx, deviceID(i), &shown[i], &buf)
			}
		}()
	}
	defer close(jobs)
	start, n := time.Now(), 0
	for ctx.Err() == nil {
		due := n + workers
		if t.Rate > 0 {
			time.Sleep(slot)
			due = int(time.Since(start).Seconds() * t.Rate)
		}
		for ; n < due; n++ {
			jobs <- n % t.Devices
		}
	}
	return nil
}

// shown is the state that the bare loop keeps of a device.
type shown struct {
	stamp []byte
	ack   jetstream.PubAckFuture // of its last message
}

// bare polls one device and publishes its location if its stamp is another one.
func (c *client) bare(ctx context.Context, id string, last *shown, buf *bytes.Buffer) {
	if c.get(ctx, id, buf) != nil {
		return
	}
	_, stamp, _ := bytes.Cut(buf.Bytes(), []byte(stampKey))
	stamp = stamp[:min(len(stamp), 21)]
	if bytes.Equal(last.stamp, stamp) {
		return
	}
	last.stamp = append(last.stamp[:0], stamp...)
	ack, err := c.js.PublishMsgAsync(c.message(id, last, buf))
	if err != nil && ctx.Err() == nil {
		time.Sleep(slot) // the window is full
	}
	last.ack = ack
}

// message makes the message of a device's answer, which is in the buffer.
func (c *client) message(id string, last *shown, buf *bytes.Buffer) *nats.Msg {
	token := publisher.Encode(id)
	m := &nats.Msg{Subject: subjects.Location(token), Data: bytes.Clone(buf.Bytes())}
	if !c.task.Same {
		return m
	}
	m.Header = publisher.CloudEvent(publisher.TypeLocation, id+string(last.stamp), c.task.API+"/api/devices/"+id, token, time.Now())
	m.Header.Set(publisher.HeaderRecorded, time.Now().UTC().Format(publisher.TimeFormat))
	m.Header.Set(nats.ExpectedLastSubjSeqHdr, "0")
	if last.ack != nil {
		select {
		case ack := <-last.ack.Ok():
			m.Header.Set(nats.ExpectedLastSubjSeqHdr, strconv.FormatUint(ack.Sequence, 10))
		case <-last.ack.Err(): //nolint:errcheck // the stream refused it; the next one is refused too
		case <-time.After(time.Second):
		}
	}
	return m
}

// Script gives each device a ticker, decodes each answer, and waits for each
// acknowledgement. It returns when ctx ends.
func Script(ctx context.Context, t Task) error {
	c, err := newClient(ctx, t)
	if err != nil {
		return err
	}
	every := time.Duration(float64(t.Devices) / t.Rate * float64(time.Second))
	for i := range t.Devices {
		id := deviceID(i)
		go func() {
			time.Sleep(every / time.Duration(t.Devices) * time.Duration(i))
			ticker := time.NewTicker(every)
			defer ticker.Stop()
			var last string
			for {
				last = c.script(ctx, id, last)
				select {
				case <-ticker.C:
				case <-ctx.Done():
					return
				}
			}
		}()
	}
	<-ctx.Done()
	return nil
}

// script polls one device and publishes a location of another time. It returns the
// time.
func (c *client) script(ctx context.Context, id, last string) string {
	var buf bytes.Buffer
	if c.get(ctx, id, &buf) != nil {
		return last
	}
	var answer struct {
		LastLocation struct {
			DateTime string `json:"dateTime"`
			raw
		} `json:"lastLocation"`
	}
	var whole struct {
		LastLocation map[string]any `json:"lastLocation"`
	}
	if json.Unmarshal(buf.Bytes(), &answer) != nil || answer.LastLocation.DateTime == last {
		return last
	}
	if json.Unmarshal(buf.Bytes(), &whole) != nil {
		return last
	}
	event, err := json.Marshal(map[string]any{"device": id, "location": whole.LastLocation})
	if err != nil {
		return last
	}
	if _, err := c.js.Publish(ctx, subjects.Location(publisher.Encode(id)), event); err != nil {
		return last
	}
	return answer.LastLocation.DateTime
}

// raw are the further fields that a script reads.
type raw struct {
	Latitude  float64        `json:"latitude"`
	Longitude float64        `json:"longitude"`
	Speed     float64        `json:"speed"`
	Alerts    []any          `json:"alerts"`
	Attrs     map[string]any `json:"attributes"`
}
