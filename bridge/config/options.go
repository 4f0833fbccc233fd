package config

import (
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/embedded"
)

// ConnOptions returns how to reach NATS, under a name that the server shows.
func (c Config) ConnOptions(name string) publisher.ConnOptions {
	return publisher.ConnOptions{
		URL: c.NATSURL.Reveal(), Name: name, Creds: c.NATSCreds, NKey: c.NATSNKey,
		User: c.NATSUser.Reveal(), Password: c.NATSPassword.Reveal(), Token: c.NATSToken.Reveal(),
		CA: c.NATSCA, Cert: c.NATSCert, Key: c.NATSKey, TLSFirst: c.NATSTLSFirst,
		InboxPrefix: c.NATSInboxPrefix, Domain: c.NATSDomain,
	}
}

// QueryOptions returns how the query service reaches NATS. own reports whether
// it has a user of its own; if not, it shares the bridge's connection.
func (c Config) QueryOptions(name string) (o publisher.ConnOptions, own bool) {
	o = c.ConnOptions(name)
	o.Creds, o.NKey = c.NATSQueryCreds, c.NATSQueryNKey
	o.User, o.Password, o.Token = c.NATSQueryUser.Reveal(), c.NATSQueryPassword.Reveal(), ""
	return o, o.Creds != "" || o.NKey != "" || o.User != ""
}

// EmbeddedOptions say how to run the embedded server.
func (c Config) EmbeddedOptions() embedded.Options {
	return embedded.Options{Addr: c.EmbeddedAddr, Dir: c.DataDir, Config: c.EmbeddedConfig, Name: "plaspy-bridge"}
}

// StreamOptions say how the streams are made.
func (c Config) StreamOptions() publisher.StreamOptions {
	return publisher.StreamOptions{
		Retention: c.Retention, MaxBytes: c.EventsMaxBytes, Replicas: c.StreamReplicas, Inbound: c.Inbound,
	}
}
