package config

import (
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/embedded"
)

// ConnOptions say how to reach NATS, under a name that the server shows.
func (c Config) ConnOptions(name string) publisher.ConnOptions {
	return publisher.ConnOptions{
		URL: c.NATSURL.Reveal(), Name: name, Creds: c.NATSCreds, NKey: c.NATSNKey,
		User: c.NATSUser.Reveal(), Password: c.NATSPassword.Reveal(), Token: c.NATSToken.Reveal(),
		CA: c.NATSCA, Cert: c.NATSCert, Key: c.NATSKey,
	}
}

// EmbeddedOptions say how to run the embedded server.
func (c Config) EmbeddedOptions() embedded.Options {
	return embedded.Options{Addr: c.EmbeddedAddr, Dir: c.DataDir, Config: c.EmbeddedConfig, Name: "plaspy-bridge"}
}

// StreamOptions say how the streams are made.
func (c Config) StreamOptions() publisher.StreamOptions {
	return publisher.StreamOptions{Retention: c.Retention, Replicas: c.StreamReplicas, Inbound: c.Inbound}
}
