package sim

import (
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"plaspy-bridge/bridge/sim/account"
	"plaspy-bridge/bridge/sim/fault"
	"plaspy-bridge/bridge/sim/fleet"
	"plaspy-bridge/bridge/sim/inprocess"
	"plaspy-bridge/bridge/sim/token"
)

// Options configure the simulation. The zero value is an API without devices and
// without limits, for the account "sim" with the key "sim-key".
type Options struct {
	Devices int           // how many devices there are at first: device0001 and so on
	IDs     []string      // devices with these ids as well
	Seed    uint64        // the same seed and start give the same fleet
	Profile fleet.Profile // how the devices report; nil means fleet.Mixed
	Start   time.Time     // when the fleet's life begins; zero means when New is called
	History int           // fixes kept per device for range queries, 80 bytes each, and posts; 0 means 256

	UserName      string        // empty means "sim"
	APIKey        string        // empty means "sim-key"
	TokenLife     time.Duration // 0 means an hour
	RefusedStatus int           // status of a refused key; 0 means 400
	Skew          time.Duration // how far the API's clock is ahead, in the Date header and the expiry of tokens

	RateLimit    int  // requests let through in any 60 seconds, the others get 429; 0 means no limit
	DailyUsage   int  // usage of the account per UTC day, 429 above it; 0 means no limit
	DailyResults int  // results per device and UTC day, 429 above it; 0 means no limit
	Idempotent   bool // honours Idempotency-Key: a repeated post gets the first answer and is stored once

	// Record is how many answers of lastLocation, and how many accepted
	// posts, are recorded per device, the newest ones; 0 means none.
	Record int
	// Control serves the control API under /_sim/. Any client of the server
	// can then read and change everything.
	Control bool

	Log *slog.Logger // one line per request at debug level; nil means no log
}

// withDefaults fills in the defaults.
func (o Options) withDefaults() Options {
	set := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	set(&o.UserName, "sim")
	set(&o.APIKey, "sim-key")
	if o.Profile == nil {
		o.Profile = fleet.Mixed
	}
	if o.Start.IsZero() {
		o.Start = time.Now()
	}
	if o.History <= 0 {
		o.History = 256
	}
	if o.TokenLife <= 0 {
		o.TokenLife = time.Hour
	}
	if o.RefusedStatus == 0 {
		o.RefusedStatus = http.StatusBadRequest
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Server is the simulated API: an http.Handler that needs no goroutine and no
// timer of its own. All its methods are safe for concurrent use.
type Server struct {
	// Account holds the devices. Its methods change them, and return the
	// locations that clients got and the posts that they sent.
	*account.Account

	opts   Options
	tokens *token.Issuer
	faults *fault.Rules
	ledger ledger
}

// New makes a server with its fleet.
func New(o Options) *Server {
	o = o.withDefaults()
	ids := make([]string, 0, o.Devices+len(o.IDs))
	for i := range o.Devices {
		ids = append(ids, fmt.Sprintf("device%04d", i+1))
	}
	s := &Server{
		Account: account.New(account.Options{
			Seed: o.Seed, Profile: o.Profile, Start: o.Start, History: o.History,
			DailyResults: o.DailyResults, Idempotent: o.Idempotent, Record: o.Record,
		}, append(ids, o.IDs...)),
		opts:   o,
		tokens: token.New(token.Options{User: o.UserName, Key: o.APIKey, Life: o.TokenLife, Seed: o.Seed}),
		faults: fault.NewRules(o.Seed),
	}
	s.ledger.limit.size(o.RateLimit)
	s.ledger.skew = o.Skew
	return s
}

// SetKey replaces the account's API key. As at the API, that invalidates the old
// key and every token at once.
func (s *Server) SetKey(key string) { s.tokens.SetKey(key) }

// SetTokenLife changes how long tokens issued from now on are valid.
func (s *Server) SetTokenLife(d time.Duration) { s.tokens.SetLife(d) }

// RevokeTokens makes every token issued so far invalid, also unexpired ones.
func (s *Server) RevokeTokens() { s.tokens.Revoke() }

// Fault switches a fault on, behind those that are on already: of several that
// apply to a request, the delays add up and the first other one happens. Call
// remove to switch it off; a second time has no effect.
func (s *Server) Fault(f fault.Rule) (remove func()) {
	id := s.faults.Add(f)
	return func() { s.faults.Remove(id) }
}

// ClearFaults switches all faults off. Requests that hang go on hanging.
func (s *Server) ClearFaults() { s.faults.Clear() }

// Counts returns a copy of the counters.
func (s *Server) Counts() Counts {
	c := s.ledger.counts()
	c.Tokens, c.Accepted = s.tokens.Counts(), s.Accepted()
	return c
}

// Transport carries requests to the server in process. See package inprocess.
func (s *Server) Transport() http.RoundTripper { return inprocess.Transport(s) }
