package cost

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"plaspy-bridge/bridge/harness/process"
	"plaspy-bridge/publisher"
)

// Starts are the times and the memory that starts with a full stream take.
type Starts struct {
	Devices  int
	Restart  time.Duration // from the start of the process until /readyz is 200
	CPU      time.Duration // of that
	RSS      int64         // resident then, in bytes
	Settled  int64         // resident half a minute later
	Takeover time.Duration // from the kill of one of two replicas until the other is ready with all devices
}

// Starts measures a restart, with two alerts of each device raised, and a takeover of
// half of the devices.
func (m *Measurement) Starts(ctx context.Context, bin string, devices int) (s Starts, err error) {
	s.Devices = devices
	dir, err := os.MkdirTemp(m.Dir, "starts-")
	if err != nil {
		return s, fmt.Errorf("measure: %w", err)
	}
	api, err := NewAPI(ctx, devices, 0)
	if err != nil {
		return s, err
	}
	defer api.Close()
	broker, first, err := m.broker(ctx, dir)
	if err != nil {
		return s, err
	}
	defer broker.Close()
	second, err := m.Ports.Take(ctx)
	if err != nil {
		return s, err
	}
	c, paced := Bridge("bridge", bin, "BRIDGE_INBOUND=false"), Load{Devices: devices, Rate: max(devices/60, 1)}
	start := func(name, listen string, l Load) (*process.Process, error) {
		p := process.New(name, bin, filepath.Join(dir, name+".log"))
		return p, p.Start(c.Args, c.Env(l, api.URL, broker.URL(), listen))
	}
	filler, err := start("filler", first, Load{Devices: devices})
	if err != nil {
		return s, err
	}
	defer func() { _ = filler.Kill() }() // it may have ended
	if err := m.fill(ctx, api, filler, broker.URL(), devices); err != nil {
		return s, err
	}
	began := time.Now()
	a, err := start("first", first, paced)
	if err != nil {
		return s, err
	}
	defer func() { _ = a.Kill() }() // it may have ended
	if err := m.restart(ctx, &s, a, first, began); err != nil {
		return s, err
	}
	b, err := start("second", second, paced)
	if err != nil {
		return s, err
	}
	defer func() { _ = b.Kill() }()
	s.Takeover, err = m.takeover(ctx, a, second, devices)
	return s, err
}

// fill has a bridge store a location and a device event of each device, ends it, and
// raises two alerts of each.
func (m *Measurement) fill(ctx context.Context, api *API, filler *process.Process, url string, devices int) error {
	if err := m.warm(ctx, api, filler, devices); err != nil {
		return err
	}
	if _, err := filler.Stop(ctx); err != nil { // it gives its lease back
		return err
	}
	return raise(ctx, url, devices)
}

// restart waits until a bridge that began at this time polls all devices, and until its
// memory has settled.
func (m *Measurement) restart(ctx context.Context, s *Starts, bridge *process.Process, addr string, began time.Time) error {
	at, err := m.polls(ctx, addr, s.Devices)
	if err != nil {
		return err
	}
	used, err := bridge.Usage()
	if err != nil {
		return err
	}
	s.Restart, s.CPU, s.RSS = at.Sub(began), used.CPU, used.RSS
	if err := pause(ctx, 30*time.Second); err != nil {
		return err
	}
	used, err = bridge.Usage()
	s.Settled = used.RSS
	return err
}

// takeover kills one of two bridges once they share the devices, and returns the time
// until the other one polls all.
func (m *Measurement) takeover(ctx context.Context, first *process.Process, second string, devices int) (time.Duration, error) {
	if _, err := m.shares(ctx, second, devices); err != nil {
		return 0, err
	}
	if err := pause(ctx, settle); err != nil {
		return 0, err
	}
	killed := time.Now()
	if err := first.Kill(); err != nil {
		return 0, err
	}
	at, err := m.polls(ctx, second, devices)
	return at.Sub(killed), err
}

// raise raises two alerts of each device, as a bridge would.
func raise(ctx context.Context, url string, devices int) error {
	log := slog.New(slog.DiscardHandler)
	conn, err := publisher.Connect(publisher.ConnOptions{URL: url}, log, nil)
	if err != nil {
		return fmt.Errorf("raise alerts: %w", err)
	}
	defer func() { _ = conn.Shut(time.Second) }()
	pub, err := publisher.New(conn, subjects, log, nil)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { pub.Run(ctx) })
	defer running.Wait()
	defer cancel()
	for i := range devices {
		id := deviceID(i)
		var chain []*publisher.Event
		for _, alert := range []string{"Speeding", "LowBattery"} {
			now := time.Now()
			chain = append(chain, subjects.AlertEvent(&publisher.Alert{
				DeviceID: id, Token: publisher.Encode(id), Alert: alert, AlertToken: publisher.Encode(alert), State: publisher.Raised,
				DateTime: []byte(`"2026-01-02T03:04:05Z"`), Latitude: []byte("4.6"), Longitude: []byte("-74.1"), FixTime: now, ObservedAt: now,
			}, 0))
		}
		if err := pub.Publish(ctx, chain, func(error) {}); err != nil {
			return fmt.Errorf("raise alerts: %w", err)
		}
	}
	return pub.Drain(ctx)
}

// polls waits until a bridge is ready and polls all devices. It returns the time since
// which that is so.
func (m *Measurement) polls(ctx context.Context, addr string, devices int) (since time.Time, err error) {
	return m.until(ctx, addr, func(n int) bool { return n == devices })
}

// shares waits until a bridge is ready and polls a part of the devices.
func (m *Measurement) shares(ctx context.Context, addr string, devices int) (since time.Time, err error) {
	return m.until(ctx, addr, func(n int) bool { return n > 0 && n < devices })
}

// steady is how long a bridge has to be ready in a row. A look just after a takeover
// may show the state before it, because the table of /readyz is refreshed regularly.
const steady = time.Second

func (m *Measurement) until(ctx context.Context, addr string, enough func(devices int) bool) (since time.Time, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, m.Limit, errSlow)
	defer cancel()
	for {
		switch now := time.Now(); {
		case !ready(ctx, addr) || !enough(owned(ctx, addr)):
			since = time.Time{}
		case since.IsZero():
			since = now
		case now.Sub(since) >= steady:
			return since, nil
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return since, err
		}
	}
}

func get(ctx context.Context, url string) *http.Response {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil // it does not listen yet
	}
	return res
}

func ready(ctx context.Context, addr string) bool {
	res := get(ctx, "http://"+addr+"/readyz")
	if res == nil {
		return false
	}
	defer func() { _ = res.Body.Close() }()
	return res.StatusCode == http.StatusOK
}

// owned returns the number of devices that a bridge polls, or 0.
func owned(ctx context.Context, addr string) int {
	res := get(ctx, "http://"+addr+"/metrics")
	if res == nil {
		return 0
	}
	defer func() { _ = res.Body.Close() }()
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if text, found := strings.CutPrefix(lines.Text(), "plaspy_bridge_replica_devices "); found {
			if n, err := strconv.ParseFloat(text, 64); err == nil {
				return int(math.Round(n))
			}
		}
	}
	return 0
}

// StartsTable returns the starts as a table in Markdown.
func StartsTable(rows []Starts) string {
	var b strings.Builder
	b.WriteString("| devices | restart: ready after | CPU time | resident then | 30 s later | takeover of half: all assigned after |\n|---|---|---|---|---|---|\n")
	for _, s := range rows {
		fmt.Fprintf(&b, "| %d | %.1f s | %.1f s | %d MB | %d MB | %.1f s |\n", s.Devices, s.Restart.Seconds(), s.CPU.Seconds(), s.RSS>>20, s.Settled>>20, s.Takeover.Seconds())
	}
	return b.String()
}
