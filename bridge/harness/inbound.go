package harness

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/publisher"
)

// Accepted is an inbound message that the stream acknowledged.
type Accepted struct {
	ID     string // its Nats-Msg-Id, which is in what is posted too
	Device string
	Seq    uint64 // in the inbound stream
}

// Producer publishes messages for the bridge to post, the way a careful gateway
// does: one device's one after the other, each again under the same id until it
// is acknowledged.
type Producer struct {
	cancel  context.CancelFunc
	devices sync.WaitGroup

	mu       sync.Mutex
	accepted []Accepted
}

// Produce starts a producer for so many new devices of the API, each with a
// message every so often, locations and alerts in turn. [Rig.Settle] stops it.
func (r *Rig) Produce(devices int, every time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	p := &Producer{cancel: cancel}
	for i := range devices {
		id := fmt.Sprintf("gateway %d/%d", i+1, devices)
		r.API.Sim.AddDevice(id)
		p.devices.Go(func() {
			tick := time.NewTicker(every)
			defer tick.Stop()
			for n := 0; ; n++ {
				select {
				case <-tick.C:
					p.publish(ctx, r.Broker.JetStream(), id, fmt.Sprintf("harness-%d-%d", i, n), n%4 == 3)
				case <-ctx.Done():
					return
				}
			}
		})
	}
	r.producer = p
}

func (p *Producer) publish(ctx context.Context, js jetstream.JetStream, device, id string, alert bool) {
	now := time.Now().UTC().Format(publisher.TimeFormat)
	subject, body := prefix.InLocation(publisher.Encode(device)),
		fmt.Sprintf(`{"dateTime":%q,"latitude":4.70,"longitude":-74.1,"attributes":{"id":%q}}`, now, id)
	if alert {
		subject, body = prefix.InAlert(publisher.Encode(device)), fmt.Sprintf(`{"alertName":%q,"dateTime":%q}`, id, now)
	}
	for tick := time.NewTicker(50 * time.Millisecond); ; {
		m := &nats.Msg{Subject: subject, Data: []byte(body)}
		try, cancel := context.WithTimeout(ctx, 2*time.Second)
		ack, err := js.PublishMsg(try, m, jetstream.WithMsgID(id), jetstream.WithRetryAttempts(0))
		cancel()
		if err == nil {
			tick.Stop()
			p.mu.Lock()
			p.accepted = append(p.accepted, Accepted{ID: id, Device: device, Seq: ack.Sequence})
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

// Stop ends the producer and gives what was accepted. A message that was sent
// and not acknowledged by then may be in the stream, and is not among them.
func (p *Producer) Stop() []Accepted {
	p.cancel()
	p.devices.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.accepted)
}

// Posting is a post that the API accepted.
type Posting struct {
	ID   string
	At   time.Time
	Life int // of the bridge that sent it
	// Hidden: the API did not tell that it had accepted.
	Hidden bool
}

// InboundCase is what the posts of a run are judged by.
type InboundCase struct {
	Accepted []Accepted
	Posted   map[string][]Posting // by device, in the API's order
	Dead     map[string]bool      // by id
	Results  map[string]int       // by id
	Lives    []Life
	Timeout  time.Duration
}

// JudgeInbound compares what the stream accepted with what was posted.
func JudgeInbound(c InboundCase) (r InboundReport, details []string) {
	accepted := slices.Clone(c.Accepted)
	slices.SortFunc(accepted, func(a, b Accepted) int { return cmp.Compare(a.Seq, b.Seq) })
	seq := make(map[string]uint64, len(accepted))
	for _, a := range accepted {
		seq[a.ID] = a.Seq
	}
	posted := map[string]bool{}
	for device, list := range c.Posted {
		latest := map[string]Posting{}
		var newest uint64
		for _, p := range list {
			before, again := latest[p.ID]
			latest[p.ID] = p
			posted[p.ID] = true
			if again {
				r.Repeated++
				if c.explains(before, p) {
					r.Allowed++
				} else {
					details = append(details, fmt.Sprintf("%s: %s was posted again by life %d, %v after life %d had", device, p.ID, p.Life, p.At.Sub(before.At), before.Life))
				}
			}
			n, known := seq[p.ID]
			if !known {
				continue // accepted, but its producer was stopped before it knew
			}
			if n < newest {
				r.Reordered++
				details = append(details, fmt.Sprintf("%s: %s was posted after a message that is behind it in the stream", device, p.ID))
			}
			newest = max(newest, n)
		}
	}
	for _, a := range accepted {
		r.Accepted++
		switch {
		case posted[a.ID]:
			r.Posted++
			if c.Results[a.ID] == 0 {
				r.Unreported++
				details = append(details, fmt.Sprintf("%s: %s was posted, and there is no result", a.Device, a.ID))
			}
		case c.Dead[a.ID]:
		default:
			r.Lost++
			details = append(details, fmt.Sprintf("%s: %s, message %d, was neither posted nor dead-lettered", a.Device, a.ID, a.Seq))
		}
		if c.Dead[a.ID] {
			r.Dead++
		}
	}
	for _, n := range c.Results {
		r.Results += n
	}
	return r, details
}

// explains tells whether a second post of a message is one that the promises
// allow: the bridge did not learn of the first, or did not live to note it down.
func (c *InboundCase) explains(first, second Posting) bool {
	if first.Hidden {
		return true
	}
	if first.Life < 0 || first.Life >= len(c.Lives) {
		return false
	}
	life := c.Lives[first.Life]
	if first.Life != second.Life {
		return life.Killed || life.Asked
	}
	return slices.ContainsFunc(life.Pauses, func(p Span) bool {
		return p.From.Before(first.At.Add(time.Second)) && p.To.Sub(first.At) >= c.Timeout/2
	})
}

// drained waits until the bridge has finished every inbound message.
func (r *Rig) drained(ctx context.Context) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		n, err := count(ctx, r.Broker.JetStream(), prefix.Inbound())
		if err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			log, _ := r.Bridge.Log()
			return fmt.Errorf("%d inbound messages are not finished: %w\n%s", n, context.Cause(ctx), tail(log))
		}
	}
}

var messageID = regexp.MustCompile(`harness-\d+-\d+`)

// inboundCase gathers what the posts are judged by.
func (r *Rig) inboundCase(ctx context.Context, accepted []Accepted) (InboundCase, error) {
	c := InboundCase{
		Accepted: accepted, Posted: map[string][]Posting{}, Dead: map[string]bool{}, Results: map[string]int{},
		Lives: r.Bridge.Lives(), Timeout: timeout,
	}
	for _, id := range r.API.Sim.IDs() {
		for _, p := range r.API.Sim.Posts(id) {
			if m := messageID.FindString(p.Body); m != "" {
				c.Posted[id] = append(c.Posted[id], Posting{ID: m, At: p.At, Life: r.API.lifeOf(p.Token), Hidden: p.Fault != "" && p.Fault != sim.Slow})
			}
		}
	}
	err := readAll(ctx, r.Broker.JetStream(), prefix.DeadLetters(), func(m jetstream.Msg, _ uint64) error {
		c.Dead[messageID.FindString(string(m.Data()))] = true
		return nil
	})
	if err != nil {
		return c, err
	}
	err = readAll(ctx, r.Broker.JetStream(), prefix.Results(), func(m jetstream.Msg, _ uint64) error {
		var result struct{ ID string }
		if err := json.Unmarshal(m.Data(), &result); err != nil {
			return err
		}
		c.Results[result.ID]++
		return nil
	})
	return c, err
}
