package inbound

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/harness/cpu"
	"plaspy-bridge/bridge/inbound/message"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/publisher/natstest"
)

// httpAPI posts over a real connection, as plainly as can be.
type httpAPI struct {
	client *http.Client
	base   string
}

func (a *httpAPI) Locations(ctx context.Context, id string, body []byte, o plaspy.PostOptions) (plaspy.Answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.base+"/api/devices/"+id+"/locations", bytes.NewReader(body))
	if err != nil {
		return plaspy.Answer{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	if o.IdempotencyKey != "" {
		req.Header.Set("Idempotency-Key", o.IdempotencyKey)
	}
	res, err := a.client.Do(req)
	if err != nil {
		return plaspy.Answer{}, err
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(res.Body)
	return plaspy.Answer{Status: res.StatusCode, Body: answer}, err
}

func (a *httpAPI) Alerts(ctx context.Context, id string, body []byte, o plaspy.PostOptions) (plaspy.Answer, error) {
	return a.Locations(ctx, id, body, o)
}

const benchDevices = 200

// BenchmarkPosts compares the consumer with a bare loop that pulls, posts each
// device's messages one after the other, and acknowledges: no validation, no
// results, no backoff, and at a restart the messages in flight lose their order.
func BenchmarkPosts(b *testing.B) {
	for _, way := range []struct {
		name string
		run  func(*testing.B, *rig, *httpAPI)
	}{{"bare", benchBare}, {"bridge", benchBridge}} {
		b.Run(way.name, func(b *testing.B) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				_, _ = w.Write([]byte(`{"success":true,"error":null,"apiUsage":1,"apiDailyUsage":1,"locations":[]}`))
			}))
			defer srv.Close()
			transport := &http.Transport{MaxIdleConnsPerHost: 64}
			defer transport.CloseIdleConnections()
			api := &httpAPI{&http.Client{Transport: transport}, srv.URL}
			r := newRig(b, natstest.Listen)
			body := fmt.Appendf(nil, `{"location":{"dateTime":"2026-01-02T03:04:01Z","latitude":4.7,"longitude":-74.1,"pad":"%0500d"}}`, 1)
			for i := range b.N {
				if _, err := r.js.PublishMsgAsync(&nats.Msg{Subject: subjects.InLocation(device(i % benchDevices)), Data: body}); err != nil {
					b.Fatal(err)
				}
				if i%2000 == 1999 {
					<-r.js.PublishAsyncComplete()
				}
			}
			<-r.js.PublishAsyncComplete()
			began, used := time.Now(), cpu.Used()
			b.ResetTimer()
			way.run(b, r, api)
			b.StopTimer()
			b.ReportMetric(float64(cpu.Used()-used)/float64(b.N)/1e3, "cpu-us/post")
			b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "posts/s")
		})
	}
}

func benchBare(b *testing.B, r *rig, api *httpAPI) {
	const workers = 16
	c, err := r.js.CreateConsumer(b.Context(), subjects.Inbound(), jetstream.ConsumerConfig{Durable: "bare", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 4096})
	if err != nil {
		b.Fatal(err)
	}
	it, err := c.Messages(jetstream.PullMaxMessages(1024))
	if err != nil {
		b.Fatal(err)
	}
	defer it.Stop()
	var wg sync.WaitGroup
	queues := make([]chan jetstream.Msg, workers)
	for w := range queues {
		queues[w] = make(chan jetstream.Msg, 64)
		wg.Go(func() {
			for m := range queues[w] {
				if _, err := api.Locations(b.Context(), m.Subject()[len("plaspy.in.location."):], m.Data(), plaspy.PostOptions{}); err != nil {
					b.Error(err)
				}
				if err := m.DoubleAck(b.Context()); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for range b.N {
		m, err := it.Next()
		if err != nil {
			b.Fatal(err)
		}
		h := 0
		for _, c := range []byte(m.Subject()) {
			h = 31*h + int(c)
		}
		queues[uint(h)%workers] <- m
	}
	for _, q := range queues {
		close(q)
	}
	wg.Wait()
}

func benchBridge(b *testing.B, r *rig, api *httpAPI) {
	count := &counting{httpAPI: api, want: b.N, done: make(chan struct{})}
	c := r.consumer(count, func(c *Consumer) { c.opt.Workers = 16 })
	stop := run(b, c)
	<-count.done
	stop() // the last acknowledgements belong to the work
}

type counting struct {
	*httpAPI
	want int
	done chan struct{}
	mu   sync.Mutex
	n    int
}

func (a *counting) Locations(ctx context.Context, id string, body []byte, o plaspy.PostOptions) (plaspy.Answer, error) {
	answer, err := a.httpAPI.Locations(ctx, id, body, o)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.n++; a.n == a.want {
		close(a.done)
	}
	return answer, err
}

// BenchmarkRead measures the reading and rewriting of one location.
func BenchmarkRead(b *testing.B) {
	body := fmt.Appendf(nil, `{"deviceId":"dev 1","name":"Truck 7","observedAt":"2026-01-02T03:04:05.678Z","location":{"dateTime":"2026-01-02T03:04:01Z","latitude":4.7,"longitude":-74.1,"pad":"%0500d"}}`, 1)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := (message.Reader{}).Read(message.Location, "dev 1", body); err != nil {
			b.Fatal(err)
		}
	}
}
