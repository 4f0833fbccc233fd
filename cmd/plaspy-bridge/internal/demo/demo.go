package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"plaspy-bridge/bridge"
	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/ops"
	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/bridge/sim/fleet"
	"plaspy-bridge/cmd/plaspy-bridge/internal/logging"
	"plaspy-bridge/publisher"
)

// options are the flags of the demo, and the program that runs it.
type options struct {
	devices uint
	seed    uint64
	length  time.Duration // 0 means until interrupted

	version, revision string
}

// Command returns the command demo. build returns the version and the revision that
// the demo's bridge reports.
func Command(build func() (version, revision string)) *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run a demo in one process: simulated fleet and API, NATS, and the bridge",
		Long: "Runs a simulated fleet behind the Plaspy API's wire format, a NATS server and the bridge between\n" +
			"them in one process, and shows the messages, until it is interrupted. It keeps no data.\n\n" +
			"The BRIDGE_ variables apply as they do for run. The PLASPY_ and NATS_ variables do not: the demo never\n" +
			"connects to your account or server. If a default port is in use, it takes a free one.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// Without this, closing the terminal or the reader of a pipe would end
			// the process before it has removed its store.
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGHUP)
			defer stop()
			signal.Ignore(syscall.SIGPIPE)
			defer signal.Reset(syscall.SIGPIPE)
			o.version, o.revision = build()
			return run(ctx, o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.UintVar(&o.devices, "devices", 20, "how many devices the fleet has")
	f.Uint64Var(&o.seed, "seed", 1, "the same seed gives the same fleet")
	f.DurationVar(&o.length, "for", 0, "how long to run; 0 means until interrupted")
	return cmd
}

// run runs the demo until ctx is done or its time is over.
func run(ctx context.Context, o options, stdout, stderr io.Writer) (err error) {
	if o.length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.length)
		defer cancel()
	}
	dir, err := os.MkdirTemp("", "plaspy-bridge-demo-")
	if err != nil {
		return fmt.Errorf("make a folder for the demo's store: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	fleet := sim.New(sim.Options{Devices: int(o.devices), Seed: o.seed, Start: time.Now().Add(-2 * time.Minute), Profile: lively, UserName: "demo", APIKey: "demo-key"})
	api, err := fleet.Listen(context.WithoutCancel(ctx), "127.0.0.1:0") // the bridge stops first
	if err != nil {
		return fmt.Errorf("simulated API: %w", err)
	}
	defer func() { err = errors.Join(err, api.Close()) }()

	cfg, warnings, err := configure(ctx, dir, api.URL)
	if err != nil {
		return err
	}
	level := logging.Level(cfg)
	log, queue, flush := logging.Open(cfg, level, stderr)
	defer flush()
	logging.Warn(log, warnings)
	b, err := bridge.New(ctx, cfg, o.version, log)
	if err != nil {
		return err
	}
	b.ControlLevel(level)
	b.Metrics().MustRegister(queue.Collector(), ops.BuildInfo(o.version, o.revision))
	var guest *visitor
	if cfg.Inbound {
		guest = &visitor{subjects: publisher.Subjects(cfg.Prefix)}
		guest.admit(fleet)
	}
	return watchBridge(ctx, b, cfg, api.URL, o, guest, stdout, log)
}

// watchBridge runs the bridge and shows the messages that it publishes.
func watchBridge(ctx context.Context, b *bridge.Bridge, cfg config.Config, api string, o options, guest *visitor, stdout io.Writer, log *slog.Logger) error {
	// The bridge stops last, because the view's summary reads the stream.
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	showing, hide := context.WithCancel(ctx)
	defer hide()

	subjects := publisher.Subjects(cfg.Prefix)
	v, viewErr := newView(b.ClientURL(), subjects, stdout)
	if viewErr == nil {
		defer v.close()
		v.write(intro(b, cfg, api, o.devices))
		v.visitor = guest
	} else {
		hide()
	}
	stopped := make(chan error, 1)
	go func() {
		defer hide()
		stopped <- b.Run(running)
	}()
	if viewErr == nil {
		v.run(showing)
		v.sumUp(log)
	}
	stop()
	return errors.Join(viewErr, <-stopped)
}

// configure returns the configuration of run with the account, the server and
// the store of the demo.
func configure(ctx context.Context, dir, api string) (config.Config, []config.Warning, error) {
	cfg, warnings, err := config.Load("PLASPY_", "NATS_", "BRIDGE_DATA_DIR", "BRIDGE_STREAM_REPLICAS", "BRIDGE_EMBEDDED_CONFIG")
	if err != nil {
		return cfg, nil, err
	}
	set := map[string]bool{}
	for _, s := range cfg.Settings(nil) {
		set[s.Name] = s.Set
	}
	base, err := url.Parse(api)
	if err != nil {
		return cfg, nil, fmt.Errorf("simulated API: %w", err)
	}
	cfg.BaseURL, cfg.AllowHTTP, cfg.Username, cfg.APIKey, cfg.APIKeyFile = *base, false, "demo", "demo-key", ""
	cfg.RateLimit, cfg.DailyResults, cfg.DailyUsage = 0, 0, 0
	cfg.NATSURL, cfg.NATSCreds, cfg.NATSNKey, cfg.NATSUser, cfg.NATSPassword, cfg.NATSToken = "", "", "", "", "", ""
	cfg.NATSCA, cfg.NATSCert, cfg.NATSKey = "", "", ""
	cfg.DataDir, cfg.EmbeddedConfig, cfg.StreamReplicas = dir, "", 1
	if !set["BRIDGE_POLL_INTERVAL"] {
		cfg.PollInterval = time.Second
	}
	if !set["BRIDGE_LOG_LEVEL"] {
		cfg.LogLevel = slog.LevelWarn
	}
	if !set["BRIDGE_EMBEDDED_ADDR"] {
		if cfg.EmbeddedAddr, err = ops.FreeAddr(ctx, cfg.EmbeddedAddr); err != nil {
			return cfg, nil, err
		}
	}
	if !set["BRIDGE_HTTP_ADDR"] {
		if cfg.HTTPAddr, err = ops.FreeAddr(ctx, cfg.HTTPAddr); err != nil {
			return cfg, nil, err
		}
	}
	return cfg, applicable(warnings, set), nil
}

// applicable keeps the warnings about variables that apply to the demo, and adds
// one for each variable that is set and does not apply.
func applicable(warnings []config.Warning, set map[string]bool) []config.Warning {
	var kept []config.Warning
	for _, w := range warnings {
		// The demo uses BRIDGE_EMBEDDED_ADDR whatever the others are.
		if strings.HasPrefix(w.Variable, "BRIDGE_") && !strings.HasPrefix(w.Variable, "BRIDGE_EMBEDDED_") {
			kept = append(kept, w)
		}
	}
	for _, name := range []string{"BRIDGE_DATA_DIR", "BRIDGE_EMBEDDED_CONFIG"} {
		if set[name] {
			kept = append(kept, config.Warning{Variable: name, Problem: "does not apply to the demo, which keeps no data"})
		}
	}
	return kept
}

// lively makes a fleet that is never dull: short trips, short rests, no outages.
func lively(r *rand.Rand) fleet.Cadence {
	return fleet.Cadence{
		Moving: time.Duration(2+r.IntN(5)) * time.Second, Parked: 20 * time.Second,
		Restless: r.IntN(5) > 0, Ignition: true, Announces: true,
	}
}

// clientURL replaces the address of every interface, which a client cannot
// connect to, with loopback.
func clientURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Hostname() != "0.0.0.0" && u.Hostname() != "::" {
		return raw
	}
	return u.Scheme + "://127.0.0.1:" + u.Port()
}
