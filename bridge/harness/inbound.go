package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/harness/judge"
	"plaspy-bridge/bridge/harness/natsserver"
	"plaspy-bridge/bridge/sim/fault"
	"plaspy-bridge/publisher"
)

// Producer publishes inbound messages as a careful gateway does: those of one device one
// after the other, each with the same id until it is acknowledged.
type Producer struct {
	cancel  context.CancelFunc
	devices sync.WaitGroup

	mu       sync.Mutex
	accepted []judge.Accepted
}

// Produce adds devices to the API and starts a producer that publishes a message of each
// at an interval, locations and alerts. [Rig.Settle] stops it.
func (r *Rig) Produce(devices int, every time.Duration) { r.produce(devices, every, 1) }

// ProduceBatches is Produce with batches of size locations instead of single messages.
// Each location counts as a message of its own.
func (r *Rig) ProduceBatches(devices int, every time.Duration, size int) {
	r.produce(devices, every, size)
}

func (r *Rig) produce(devices int, every time.Duration, size int) {
	ctx, cancel := context.WithCancel(context.Background())
	p := &Producer{cancel: cancel}
	for i := range devices {
		id := fmt.Sprintf("gateway %d/%d", i+1, devices)
		r.API.Sim.AddDevice(id)
		p.devices.Go(func() {
			tick := time.NewTicker(every)
			defer tick.Stop()
			for n := 0; ; n += size {
				select {
				case <-tick.C:
					p.publish(ctx, r.Broker.JetStream(), delivery{device: id, producer: i, first: n, size: size})
				case <-ctx.Done():
					return
				}
			}
		})
	}
	r.producer = p
}

// delivery is one message: a location, an alert or a batch of locations.
type delivery struct {
	device   string
	producer int
	first    int // number of its first element
	size     int
}

// id returns the id of an element. The id of the first one is that of the message.
func (d *delivery) id(element int) string {
	return fmt.Sprintf("harness-%d-%d", d.producer, d.first+element)
}

// message returns the subject and the body.
func (d *delivery) message() (subject, body string) {
	token := publisher.Encode(d.device)
	now := time.Now().UTC().Format(publisher.TimeFormat)
	if d.size == 1 && d.first%4 == 3 {
		return natsserver.Subjects.InAlert(token), fmt.Sprintf(`{"alertName":%q,"dateTime":%q}`, d.id(0), now)
	}
	list := make([]string, d.size)
	for i := range list {
		list[i] = fmt.Sprintf(`{"dateTime":%q,"latitude":4.70,"longitude":-74.1,"attributes":{"id":%q}}`, now, d.id(i))
	}
	body = list[0]
	if d.size > 1 {
		body = "[" + strings.Join(list, ",") + "]"
	}
	return natsserver.Subjects.InLocation(token), body
}

// publish publishes a message until it is acknowledged or the context is cancelled.
func (p *Producer) publish(ctx context.Context, js jetstream.JetStream, d delivery) {
	subject, body := d.message()
	id := d.id(0)
	for tick := time.NewTicker(50 * time.Millisecond); ; {
		m := &nats.Msg{Subject: subject, Data: []byte(body)}
		try, cancel := context.WithTimeout(ctx, 2*time.Second)
		ack, err := js.PublishMsg(try, m, jetstream.WithMsgID(id), jetstream.WithRetryAttempts(0))
		cancel()
		if err == nil {
			tick.Stop()
			p.mu.Lock()
			for i := range d.size {
				p.accepted = append(p.accepted, judge.Accepted{ID: d.id(i), Device: d.device, Seq: judge.Place(ack.Sequence, i)})
			}
			p.mu.Unlock()
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			tick.Stop()
			return
		}
	}
}

// Stop ends the producer and returns the accepted messages. A message that was sent and
// not acknowledged by then may be in the stream, and is not among them.
func (p *Producer) Stop() []judge.Accepted {
	p.cancel()
	p.devices.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.accepted)
}

// drained waits until the bridges have finished every inbound message.
func (r *Rig) drained(ctx context.Context) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		n, err := natsserver.Count(ctx, r.Broker.JetStream(), natsserver.Subjects.Inbound())
		if err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%d inbound messages are not finished: %w\n%s", n, context.Cause(ctx), r.tails())
		}
	}
}

var messageID = regexp.MustCompile(`harness-\d+-\d+`)

// inboundCase collects the facts about the posts for the judge.
func (r *Rig) inboundCase(ctx context.Context, accepted []judge.Accepted) (judge.InboundCase, error) {
	lives, first := r.lives()
	c := judge.InboundCase{
		Accepted: accepted, Posted: map[string][]judge.Posting{}, Dead: map[string]bool{}, Results: map[string]int{},
		Lives: lives, Away: r.Broker.Away(), Removed: r.Broker.Removed(), Grace: timeout, Timeout: timeout, Workers: r.setting("BRIDGE_INBOUND_WORKERS", inboundWorkers),
	}
	for _, id := range r.API.Sim.IDs() {
		for _, p := range r.API.Sim.Posts(id) {
			if m := messageID.FindString(p.Body); m != "" {
				c.Posted[id] = append(c.Posted[id], judge.Posting{ID: m, At: p.At, Life: r.lifeOf(p.Token, first), Hidden: p.Fault != "" && p.Fault != fault.Slow})
			}
		}
	}
	err := natsserver.ReadAll(ctx, r.Broker.JetStream(), natsserver.Subjects.DeadLetters(), func(m jetstream.Msg, _ uint64) error {
		for _, id := range messageID.FindAllString(string(m.Data()), -1) {
			c.Dead[id] = true
		}
		return nil
	})
	if err != nil {
		return c, err
	}
	err = natsserver.ReadAll(ctx, r.Broker.JetStream(), natsserver.Subjects.Results(), func(m jetstream.Msg, _ uint64) error {
		return noteResult(m.Data(), c.Results)
	})
	return c, err
}

// noteResult counts a result for its message, or for each element of its batch.
func noteResult(data []byte, results map[string]int) error {
	var result struct {
		ID    string
		Items []json.RawMessage
	}
	if err := json.Unmarshal(data, &result); err != nil {
		return err
	}
	var producer, first int
	if _, err := fmt.Sscanf(result.ID, "harness-%d-%d", &producer, &first); err != nil {
		return fmt.Errorf("result of %q: %w", result.ID, err)
	}
	d := delivery{producer: producer, first: first}
	for i := range max(len(result.Items), 1) {
		results[d.id(i)]++
	}
	return nil
}
