package preflight

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"plaspy-bridge/auth"
	"plaspy-bridge/bridge/outbound/inventory"
	"plaspy-bridge/bridge/plaspy"
)

// clockTolerance is the largest difference between two clocks that does not
// matter to published events.
const clockTolerance = 5 * time.Second

// Remedies for failed requests.
const (
	apiTrouble = "check the state of the API, or try again later"
	notTheAPI  = "check PLASPY_BASE_URL: the server there does not answer like the API"
)

// api requests a token, the device list and, if needed, the groups.
func (c *check) api(ctx context.Context, agent string) {
	c.keyFile()
	keys, err := c.cfg.KeySource(c.log)
	if err != nil {
		c.say(Fail, "key file", err.Error(), "make it readable, with the key on its one line")
		return
	}
	clock := &clock{base: plaspy.NewTransport(plaspy.Options{Timeout: c.cfg.Timeout, MaxConns: 1})}
	defer clock.base.CloseIdleConnections()
	o := plaspy.Options{
		BaseURL: &c.cfg.BaseURL, Timeout: c.cfg.Timeout, Log: c.log, UserAgent: agent, Transport: clock,
		// No budget: these few requests must not wait.
		Budget: plaspy.NewBudget(0, c.log, nil),
	}
	tokens, err := plaspy.TokenConfig(o, c.cfg.Username, keys.Key)
	if err != nil {
		c.say(Fail, "token", err.Error(), "correct PLASPY_BASE_URL")
		return
	}
	o.Tokens = auth.New(tokens, c.log, nil)
	client, err := plaspy.New(o)
	if err != nil {
		c.say(Fail, "token", err.Error(), "correct PLASPY_BASE_URL")
		return
	}
	if c.token(ctx, o.Tokens) {
		devices, listed := c.devices(ctx, client)
		groups, grouped := c.groups(ctx, client)
		if listed && grouped {
			c.choice(devices, groups)
		}
	}
	if skew, known := clock.skew(); known {
		c.skew("API", skew)
	}
}

// keyFile checks the permissions of the key file.
func (c *check) keyFile() {
	if c.cfg.APIKeyFile == "" {
		return
	}
	info, err := os.Stat(c.cfg.APIKeyFile)
	switch {
	case err != nil: // KeySource reports it
	case runtime.GOOS != "windows" && info.Mode().Perm()&0o007 != 0:
		c.say(Warn, "key file", fmt.Sprintf("every user of this machine can read it (mode %s)", info.Mode().Perm()),
			"chmod o= the file; if the bridge reads it as another user, as in compose.yaml, keep 644 and make its folder private (chmod 700)")
	default:
		c.ok("key file", "readable, mode %s", info.Mode().Perm()&fs.ModePerm)
	}
}

func (c *check) token(ctx context.Context, tokens *auth.Manager) bool {
	ctx, cancel := c.limited(ctx)
	defer cancel()
	err := tokens.Try(ctx)
	if err == nil {
		c.ok("token", "granted, valid for another %s", time.Until(tokens.State().Expires).Round(time.Second))
		return true
	}
	do := apiTrouble
	e, known := errors.AsType[*auth.Error](err)
	switch {
	case known && e.Refused:
		do = "check PLASPY_USERNAME and the API key; a key generated later has made this one invalid"
	case known && untrusted(err):
		do = "correct the host in PLASPY_BASE_URL or this machine's clock, or name a file with the certificate's authority in SSL_CERT_FILE"
	case known && e.Status == 0:
		do = "check PLASPY_BASE_URL, the network, DNS, proxy and firewall"
	case known && e.Status < 500 && e.Status != http.StatusTooManyRequests:
		do = notTheAPI
	}
	c.say(Fail, "token", reason(ctx, err), do)
	return false
}

// untrusted reports whether the server's certificate was not accepted.
func untrusted(err error) bool {
	_, ok := errors.AsType[*tls.CertificateVerificationError](err)
	return ok
}

// devices reads the device list. ok is false if the list has no active device.
func (c *check) devices(ctx context.Context, client *plaspy.Client) (devices []plaspy.Device, ok bool) {
	ctx, cancel := c.limited(ctx)
	defer cancel()
	devices, skipped, err := client.Devices(ctx)
	if err != nil {
		c.apiFailure(ctx, "device list", err)
		return nil, false
	}
	active := (&inventory.Selection{}).Choose(devices, nil).Listed
	if active == 0 {
		c.say(Warn, "device list", fmt.Sprintf("no active device among %d listed, so no device is polled", len(devices)), "check that this is the right account")
		return nil, false
	}
	c.ok("device list", "%d active devices", active)
	if len(skipped) > 0 {
		c.say(Warn, "device list", fmt.Sprintf("%d entries are invalid, the first: %v", len(skipped), skipped[0]), "these devices are not polled; report it to the API's vendor")
	}
	return devices, true
}

// groups reads the groups if BRIDGE_GROUPS is set. ok is false if that fails.
func (c *check) groups(ctx context.Context, client *plaspy.Client) (groups []plaspy.Group, ok bool) {
	if len(c.cfg.Groups) == 0 {
		return nil, true
	}
	ctx, cancel := c.limited(ctx)
	defer cancel()
	groups, _, err := client.Groups(ctx)
	if err != nil {
		c.apiFailure(ctx, "groups", err)
		return nil, false
	}
	known := map[string]bool{}
	for _, g := range groups {
		known[g.ID], known[g.Name] = true, true
	}
	for i, name := range c.cfg.Groups {
		if !known[name] {
			c.say(Warn, "groups", fmt.Sprintf("entry %d of BRIDGE_GROUPS is neither the id nor the name of one of %d groups", i+1, len(groups)), "correct it; it selects no device")
			continue
		}
		c.ok("groups", "entry %d of BRIDGE_GROUPS exists", i+1)
	}
	return groups, true
}

// choice reports how many devices the settings select.
func (c *check) choice(devices []plaspy.Device, groups []plaspy.Group) {
	sel := inventory.Selection{Devices: c.cfg.Devices, Exclude: c.cfg.DevicesExclude, Groups: c.cfg.Groups}
	choice := sel.Choose(devices, groups)
	for _, pattern := range choice.Unused {
		c.say(Warn, "selection", fmt.Sprintf("entry %d of BRIDGE_DEVICES matches no device", slices.Index(c.cfg.Devices, pattern)+1), "correct it; quotes around an entry are part of it")
	}
	if choice.Chosen == 0 {
		c.say(Fail, "selection", fmt.Sprintf("none of %d active devices is selected, so no device is polled", choice.Listed),
			"correct BRIDGE_DEVICES, BRIDGE_DEVICES_EXCLUDE and BRIDGE_GROUPS")
		return
	}
	c.ok("selection", "%d of %d active devices are selected", choice.Chosen, choice.Listed)
	c.pace(choice.Chosen)
}

// pace compares the request budget with the poll interval.
func (c *check) pace(devices int) {
	if c.cfg.RateLimit == 0 {
		return
	}
	round := time.Duration(devices) * time.Minute / time.Duration(c.cfg.RateLimit)
	if round > c.cfg.PollInterval {
		c.say(Warn, "budget", fmt.Sprintf("%d requests a minute take %s to poll %d devices once, longer than the interval of %s",
			c.cfg.RateLimit, round.Round(time.Second), devices, c.cfg.PollInterval),
			"raise PLASPY_RATE_LIMIT if the vendor allows it, or BRIDGE_POLL_INTERVAL, or poll fewer devices")
		return
	}
	c.ok("budget", "%d requests a minute poll %d devices once in %s", c.cfg.RateLimit, devices, max(round, time.Second).Round(time.Second))
}

// apiFailure reports a failed request after a token was granted.
func (c *check) apiFailure(ctx context.Context, item string, err error) {
	do := apiTrouble
	switch plaspy.Classify(err) {
	case plaspy.Reauth:
		do = "the API grants a token and then rejects it: report it to the vendor"
	case plaspy.Forbidden:
		do = "allow this user to read devices in the Plaspy account"
	case plaspy.Reject:
		do = notTheAPI
	}
	c.say(Fail, item, reason(ctx, err), do)
}

// skew reports the difference between another machine's clock and the local one.
func (c *check) skew(owner string, ahead time.Duration) {
	const item = "clock"
	switch {
	case ahead > clockTolerance:
		c.say(Warn, item, fmt.Sprintf("the local clock is %s behind the %s's", ahead.Round(time.Second), owner), "synchronize the clocks (NTP): ages and time ranges are wrong by this amount")
	case ahead < -clockTolerance:
		c.say(Warn, item, fmt.Sprintf("the local clock is %s ahead of the %s's", (-ahead).Round(time.Second), owner), "synchronize the clocks (NTP): ages and time ranges are wrong by this amount")
	default:
		c.ok(item, "agrees with the %s's", owner)
	}
}

// clock reads the Date header of each answer. Safe for concurrent use.
type clock struct {
	base *plaspy.Connections

	mu    sync.Mutex
	ahead time.Duration // guarded by mu: according to the last answer
	known bool          // guarded by mu
}

// RoundTrip sends the request and keeps the clock difference of the answer.
func (k *clock) RoundTrip(req *http.Request) (*http.Response, error) {
	sent := time.Now()
	res, err := k.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	received := time.Now()
	if date, err := http.ParseTime(res.Header.Get("Date")); err == nil {
		k.mu.Lock()
		k.ahead, k.known = offset(date, time.Second, sent, received), true
		k.mu.Unlock()
	}
	return res, nil
}

func (k *clock) skew() (ahead time.Duration, known bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ahead, k.known
}

// offset returns by how much another clock is ahead at least, or 0 if the clocks
// may agree. The other clock showed a time, truncated to a multiple of unit,
// between sent and received.
func offset(shown time.Time, unit time.Duration, sent, received time.Time) time.Duration {
	if low := shown.Sub(received); low > 0 {
		return low
	}
	return min(0, shown.Add(unit).Sub(sent))
}
