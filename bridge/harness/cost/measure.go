package cost

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/harness/natsserver"
	"plaspy-bridge/bridge/harness/process"
	"plaspy-bridge/publisher/natstest/loopback"
)

// Client is a program that polls and publishes.
type Client struct {
	Name string
	Bin  string
	Args []string
	// Env returns the environment for a load, given the addresses of the API, of
	// NATS, and one to listen on.
	Env func(l Load, api, nats, listen string) []string
	// Profiled means that it serves CPU profiles at the address that it listens on.
	Profiled bool
}

// Load is the work that clients are compared at.
type Load struct {
	Devices int
	Rate    int     // polls a second; 0 means as many as possible
	Changed float64 // the share of polls that show a new location
	Budget  int     // requests a minute, or 0 for those that the rate needs
}

// String names the load in the table.
func (l Load) String() string {
	pace := "flat out"
	if l.Rate > 0 {
		pace = fmt.Sprintf("%d polls/s", l.Rate)
	}
	return fmt.Sprintf("%d devices, %s, %.0f%% changed", l.Devices, pace, 100*l.Changed)
}

// Figures are the measured values of one client in one window.
type Figures struct {
	Window         time.Duration
	Polls          int64
	Client, Server time.Duration // CPU time
	Switches       int64         // how often threads of the client went to sleep
	RSS            int64         // bytes, at the end
	Warm           time.Duration // from the start until each device was polled
	Delays         []time.Duration
}

// delays is the most messages of which the delay is looked at.
const delays = 20_000

// Measurement runs clients one at a time.
type Measurement struct {
	Binaries process.Binaries
	Ports    *loopback.Ports
	Dir      string
	Window   time.Duration
	Limit    time.Duration // until each device was polled
	// Profiles is the folder that CPU profiles of the windows are written to. Profiling
	// costs CPU time itself. Empty means none.
	Profiles string
}

// Run runs one client at a load, with a nats-server and an API of its own.
func (m *Measurement) Run(ctx context.Context, c Client, l Load) (f Figures, err error) {
	dir, err := os.MkdirTemp(m.Dir, "run-")
	if err != nil {
		return f, fmt.Errorf("measure: %w", err)
	}
	api, err := NewAPI(ctx, l.Devices, l.Changed)
	if err != nil {
		return f, err
	}
	defer api.Close()
	broker, listen, err := m.broker(ctx, dir)
	if err != nil {
		return f, err
	}
	defer broker.Close()
	client := process.New(c.Name, c.Bin, filepath.Join(dir, "client.log"))
	start := time.Now()
	if err := client.Start(c.Args, c.Env(l, api.URL, broker.URL(), listen)); err != nil {
		return f, err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s, %v: %w\n%s", c.Name, l, err, client.LogEnd())
		}
		_ = client.Kill() // it may have ended
	}()
	if err := m.warm(ctx, api, client, l.Devices); err != nil {
		return f, err
	}
	f.Warm = time.Since(start)
	if m.Profiles != "" && c.Profiled {
		defer m.profile(ctx, listen, fmt.Sprintf("%s, %v", c.Name, l))()
	}
	return f, m.window(ctx, &f, api, client, broker)
}

// profile takes a CPU profile of a window. The function that it returns waits for it.
func (m *Measurement) profile(ctx context.Context, addr, name string) (wait func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", addr, max(int(m.Window.Seconds())-1, 1))
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return
		}
		defer func() { _ = res.Body.Close() }()
		if b, err := io.ReadAll(res.Body); err == nil && res.StatusCode == http.StatusOK {
			_ = os.WriteFile(filepath.Join(m.Profiles, strings.NewReplacer(" ", "-", ",", "", "%", "", "/", "").Replace(name)+".pb.gz"), b, 0o600)
		}
	}()
	return func() { <-done }
}

// broker starts a nats-server, and takes one more address.
func (m *Measurement) broker(ctx context.Context, dir string) (b *natsserver.Broker, listen string, err error) {
	addr, err := m.Ports.Take(ctx)
	if err != nil {
		return nil, "", err
	}
	if listen, err = m.Ports.Take(ctx); err != nil {
		return nil, "", err
	}
	if b, err = natsserver.New(m.Binaries.Broker, dir, addr); err != nil {
		return nil, "", err
	}
	if err := b.Start(ctx); err != nil {
		b.Close()
		return nil, "", err
	}
	return b, listen, nil
}

// errSlow ends a measurement of a client that does not get to its work.
var errSlow = errors.New("not every device was polled in time")

// settle is how long a client runs on after the last device was first polled. By then
// a garbage collector has its target.
const settle = 6 * time.Second

// warm waits until each device was polled, and then until the client has settled.
func (m *Measurement) warm(ctx context.Context, api *API, client *process.Process, devices int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, m.Limit, errSlow)
	defer cancel()
	for {
		if _, polled := api.Polls(); polled >= devices {
			return pause(ctx, settle)
		}
		if !client.Running() {
			return errors.New("the process ended")
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			_, polled := api.Polls()
			return fmt.Errorf("%w: %d of %d", err, polled, devices)
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// window measures the usage in one window.
func (m *Measurement) window(ctx context.Context, f *Figures, api *API, client *process.Process, broker *natsserver.Broker) error {
	begin := time.Now()
	polls, _ := api.Polls()
	client0, err := client.Usage()
	if err != nil {
		return err
	}
	server0, err := broker.Usage()
	if err != nil {
		return err
	}
	if err := pause(ctx, m.Window); err != nil {
		return err
	}
	client1, err := client.Usage()
	if err != nil {
		return err
	}
	server1, err := broker.Usage()
	if err != nil {
		return err
	}
	after, _ := api.Polls()
	f.Window, f.Polls = time.Since(begin), after-polls
	f.Client, f.Server, f.RSS = client1.CPU-client0.CPU, server1.CPU-server0.CPU, client1.RSS
	f.Switches = max(client1.Switches-client0.Switches, 0) // less if threads have ended
	if f.Polls == 0 {
		return errors.New("no device was polled in the window")
	}
	f.Delays, err = readDelays(ctx, broker.JetStream(), begin)
	return err
}

// readDelays reads how long after their answers the locations since begin were
// stored.
func readDelays(ctx context.Context, js jetstream.JetStream, begin time.Time) ([]time.Duration, error) {
	const patience = 20 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	consumer, err := js.OrderedConsumer(ctx, subjects.Events(), jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{subjects.Location("*")}, DeliverPolicy: jetstream.DeliverByStartTimePolicy, OptStartTime: &begin,
	})
	if err != nil {
		return nil, fmt.Errorf("read delays: %w", err)
	}
	info, err := consumer.Info(ctx)
	if err != nil {
		return nil, fmt.Errorf("read delays: %w", err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		return nil, fmt.Errorf("read delays: %w", err)
	}
	defer messages.Stop()
	var list []time.Duration
	for range min(info.NumPending, delays) {
		msg, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return nil, fmt.Errorf("read delays: %w", err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			return nil, fmt.Errorf("read delays: %w", err)
		}
		if at, ok := stampOf(msg.Data()); ok {
			list = append(list, meta.Timestamp.Sub(at))
		}
	}
	slices.Sort(list)
	return list, nil
}

// TaskEnv is the variable in which a client that is not the bridge gets its [Task].
const TaskEnv = "COST_TASK"

// Helper makes a client of this program, which has to call [Bare] or [Script] when
// variable mode is set to 1. With same, it publishes the same messages as the bridge.
func Helper(name, mode string, same bool) (Client, error) {
	self, err := os.Executable()
	if err != nil {
		return Client{}, fmt.Errorf("measure: %w", err)
	}
	return Client{Name: name, Bin: self, Env: func(l Load, api, nats, _ string) []string {
		task, err := json.Marshal(Task{API: api, NATS: nats, Devices: l.Devices, Rate: float64(l.Rate), Same: same})
		if err != nil {
			panic(err) // it holds text and numbers only
		}
		return append(os.Environ(), TaskEnv+"="+string(task), mode+"=1")
	}}, nil
}

// Bridge makes a client of a binary of plaspy-bridge.
func Bridge(name, bin string, more ...string) Client {
	return Client{Name: name, Bin: bin, Args: []string{"run"}, Profiled: true, Env: func(l Load, api, nats, listen string) []string {
		env := []string{
			"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "PLASPY_BASE_URL=" + api, "PLASPY_USERNAME=sim", "PLASPY_API_KEY=sim-key",
			"NATS_URL=" + nats, "BRIDGE_HTTP_ADDR=" + listen, "BRIDGE_LOG_LEVEL=warn",
		}
		switch {
		case l.Budget > 0:
			env = append(env, fmt.Sprint("PLASPY_RATE_LIMIT=", l.Budget))
		case l.Rate > 0: // 5% more, so that the schedule decides on the pace
			env = append(env, fmt.Sprint("PLASPY_RATE_LIMIT=", l.Rate*60*105/100), "BRIDGE_SCHEDULE=fixed",
				fmt.Sprint("BRIDGE_POLL_INTERVAL=", time.Duration(l.Devices)*time.Second/time.Duration(l.Rate)))
		default:
			env = append(env, "PLASPY_RATE_LIMIT=0", "BRIDGE_SCHEDULE=fixed",
				fmt.Sprint("BRIDGE_POLL_INTERVAL=", max(time.Duration(l.Devices)*30*time.Microsecond, 100*time.Millisecond)))
		}
		return append(env, more...)
	}}
}
