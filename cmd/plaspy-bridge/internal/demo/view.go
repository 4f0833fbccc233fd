package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge"
	"plaspy-bridge/bridge/config"
	"plaspy-bridge/publisher"
)

const (
	linesPerSecond = 8 // of each kind; a person can read no more
	summaryEvery   = 10 * time.Second
	askTimeout     = time.Second
)

// view prints the messages on the bridge's subjects. It is an ordinary
// subscriber, without access to the bridge's internals.
type view struct {
	out      io.Writer
	broken   error // of the first write that failed; nothing is written after it
	nc       *nats.Conn
	js       jetstream.JetStream
	sub      *nats.Subscription
	events   chan *nats.Msg
	subjects publisher.Subjects
	visitor  *visitor // nil means that nothing is posted
	begun    time.Time

	count, shown int
	second       int64          // the one that lines counts for
	lines        map[string]int // shown in it, by kind
	recent       map[string]int // since the last summary, by kind
	recentFrom   time.Time
	seen         map[string]bool // devices
	hidden       int             // events since the last summary that had no line
}

// newView subscribes. Close it.
func newView(server string, subjects publisher.Subjects, out io.Writer) (*view, error) {
	v := &view{
		out: out, events: make(chan *nats.Msg, 4096), subjects: subjects, begun: time.Now(),
		lines: map[string]int{}, recent: map[string]int{}, recentFrom: time.Now(), seen: map[string]bool{},
	}
	var err error
	// Messages that the terminal is too slow for are dropped here, not in the stream.
	v.nc, err = nats.Connect(server, nats.Name("plaspy-bridge demo"), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		return nil, fmt.Errorf("subscribe to the demo's NATS server: %w", err)
	}
	if v.js, err = jetstream.New(v.nc); err == nil {
		v.sub, err = v.nc.ChanSubscribe(string(subjects)+".>", v.events)
	}
	if err == nil {
		err = v.nc.FlushTimeout(askTimeout)
	}
	if err != nil {
		v.nc.Close()
		return nil, fmt.Errorf("subscribe to the demo's NATS server: %w", err)
	}
	return v, nil
}

func (v *view) close() { v.nc.Close() }

func (v *view) write(text string) {
	if v.broken == nil {
		_, v.broken = io.WriteString(v.out, text)
	}
}

// run shows events until ctx is done or the output is closed.
func (v *view) run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for v.broken == nil {
		select {
		case <-ctx.Done():
			return
		case m := <-v.events:
			v.show(m, time.Now())
		case now := <-tick.C:
			v.tick(ctx, now)
		}
	}
}

func (v *view) tick(ctx context.Context, now time.Time) {
	if now.Sub(v.recentFrom) >= summaryEvery {
		v.summary(now)
	}
	if v.visitor != nil {
		v.visitor.tick(ctx, v.nc, v.js, now)
	}
}

// show writes a line for an event, at most linesPerSecond of each kind.
func (v *view) show(m *nats.Msg, now time.Time) {
	kind, text := v.describe(m)
	if kind == "" {
		return
	}
	v.count++
	v.recent[kind]++
	if s := now.Unix(); s != v.second {
		v.second = s
		clear(v.lines)
	}
	if v.lines[kind] >= linesPerSecond {
		v.hidden++
		return
	}
	v.lines[kind]++
	v.shown++
	v.write(fmt.Sprintf("%s  %-40s %s\n", now.Format("15:04:05.0"), m.Subject, text))
}

// message has the fields that the view reads, of all kinds of messages.
type message struct {
	DeviceID, Name, Change, Alert, State string
	Critical                             bool
	Texts                                []string
	Status                               int
	Posted                               bool
	Reason                               string
	Location                             struct {
		Speed, Latitude, Longitude float64
		Course                     float64
	}
}

// describe returns a message's kind and a text for it. The kind is empty if the
// message is not shown.
func (v *view) describe(m *nats.Msg) (kind, text string) {
	rest := strings.TrimPrefix(m.Subject, string(v.subjects)+".")
	kind, _, _ = strings.Cut(rest, ".")
	var body message
	_ = json.Unmarshal(m.Data, &body) // another program's message has no text
	switch kind {
	case "location":
		v.seen[body.DeviceID] = true
		l := body.Location
		return kind, fmt.Sprintf("%-18s %3.0f km/h %s %.5f,%.5f", body.Name, l.Speed, heading(l.Course), l.Latitude, l.Longitude)
	case "alert":
		mark := "alert"
		if body.Critical {
			mark = "ALERT"
		}
		return kind, strings.TrimRight(fmt.Sprintf("%-18s %s %s %s", body.Name, mark, body.State, strings.Join(body.Texts, ", ")), " ")
	case "device":
		return kind, "device " + body.Change
	case "in":
		return kind, "received, to be posted to the API"
	case "result":
		if !body.Posted {
			return kind, "not posted: " + body.Reason
		}
		return kind, fmt.Sprintf("posted to the API, which answered %d", body.Status)
	case "dlq":
		return kind, "dead letter: " + m.Header.Get("Plaspy-Reason")
	default:
		return "", ""
	}
}

// heading returns a course as one of eight directions.
func heading(course float64) string {
	directions := [...]string{"N ", "NE", "E ", "SE", "S ", "SW", "W ", "NW"}
	return directions[int(course/45+0.5)&7]
}

// summary writes the totals since the last summary.
func (v *view) summary(now time.Time) {
	span := now.Sub(v.recentFrom)
	total := 0
	for _, n := range v.recent {
		total += n
	}
	if v.count == 0 {
		v.write(fmt.Sprintf("--- no event yet after %.0f s: see /readyz and the log on stderr\n", now.Sub(v.begun).Seconds()))
	} else {
		v.write(fmt.Sprintf("--- last %.0f s: %s, %s (%.1f events a second, %d not shown)   %s so far\n",
			span.Seconds(), several(v.recent["location"], "location"), several(v.recent["alert"], "alert"),
			float64(total)/span.Seconds(), v.hidden, several(len(v.seen), "device")))
	}
	clear(v.recent)
	v.recentFrom, v.hidden = now, 0
}

// sumUp writes the demo's last line, with the number of events that the stream holds.
func (v *view) sumUp(log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	stored := ""
	if s, err := v.js.Stream(ctx, v.subjects.Events()); err == nil {
		stored = fmt.Sprintf(", %d stored in the stream %s", s.CachedInfo().State.LastSeq, v.subjects.Events())
	} else {
		log.Debug("could not read the stream for the summary", "err", err)
	}
	v.write(fmt.Sprintf("\n%s of %s in %.0f s, %d shown%s.\n",
		several(v.count, "message"), several(len(v.seen), "device"), time.Since(v.begun).Seconds(), v.shown, stored))
}

func several(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// intro returns the demo's first lines.
func intro(b *bridge.Bridge, cfg config.Config, api string, devices uint) string {
	var w strings.Builder
	server := clientURL(b.ClientURL())
	s := publisher.Subjects(cfg.Prefix)
	fmt.Fprintf(&w, "plaspy-bridge demo: %s, all in this process; Ctrl-C ends it and removes its data.\n\n", several(int(devices), "simulated vehicle"))
	fmt.Fprintf(&w, "  Plaspy API  %s (simulated)\n  NATS        %s%s\n", api, server, instead(cfg.EmbeddedAddr, "BRIDGE_EMBEDDED_ADDR"))
	health := ""
	if addr := b.HTTPAddr(); addr != nil {
		health = clientURL("http://" + addr.String())
		fmt.Fprintf(&w, "  HTTP        %s%s\n", health, instead(cfg.HTTPAddr, "BRIDGE_HTTP_ADDR"))
	}
	fmt.Fprintf(&w, "\nSubjects:\n")
	for _, line := range subjectLines(s, cfg.Inbound) {
		fmt.Fprintf(&w, "  %-32s %s\n", line[0], line[1])
	}
	fmt.Fprintf(&w, "\nIn another terminal:\n  nats sub -s %s '%s.>'\n", server, s)
	if cfg.Inbound {
		fmt.Fprintf(&w, "  nats pub -s %s %s '{\"alertName\": \"SOSButton\", \"dateTime\": \"%s\"}'\n", server, s.InAlert(visitorID), time.Now().UTC().Format(time.RFC3339))
	}
	if health != "" {
		fmt.Fprintf(&w, "  curl -s %s/readyz\n", health)
		fmt.Fprintf(&w, "\nIn a browser, the live view with a map:\n  %s/\n", health)
	}
	w.WriteString("\n")
	return w.String()
}

// subjectLines returns the subjects to subscribe or publish to, each with its use.
func subjectLines(s publisher.Subjects, inbound bool) [][2]string {
	out := [][2]string{
		{s.Location("<device>"), "a new or changed last location"},
		{s.Alert("<device>", "<alert>"), "an alert was raised or cleared"},
		{s.Device("<device>"), "a device was added, changed or removed"},
	}
	if !inbound {
		return out
	}
	return append(out,
		[2]string{s.InLocation("<device>"), "publish here: a location to post to the API"},
		[2]string{s.InAlert("<device>"), "publish here: an alert to post to the API"},
		[2]string{s.Result("*", "<device>"), "the API's answer to it"},
	)
}

// instead returns a note if the default address was in use, else "".
func instead(addr, variable string) string {
	for _, v := range config.Variables() {
		if v.Name == variable && os.Getenv(variable) == "" && addr != v.Default {
			return " (" + v.Default + " is in use)"
		}
	}
	return ""
}
