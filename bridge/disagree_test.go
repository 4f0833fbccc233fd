package bridge

import (
	"net/http"
	"strings"
	"testing"

	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/bridge/sim/fleet"
	"plaspy-bridge/publisher/natstest"
)

// TestReplicasDisagree: replicas with different BRIDGE_DEVICES work, say so on
// /readyz, and stop saying so when the other one is gone.
func TestReplicasDisagree(t *testing.T) {
	t.Parallel()
	_, cfg := fleetOf(t, sim.Options{Devices: 20, Seed: 1, Profile: fleet.EverySecond})
	srv := natstest.Start(t, natstest.Listen)
	cfg.NATSURL = config.Servers(srv.ClientURL())
	a, _ := replicaOf(t, cfg, "a")
	readyz(t, a, "ready", func(status int, body string) bool {
		return status == http.StatusOK && !strings.Contains(body, "degraded")
	})
	cfg.Devices = []string{"device0001"}
	b, end := replicaOf(t, cfg, "b")
	said := func(other string) func(int, string) bool {
		return func(status int, body string) bool {
			return status == http.StatusOK && strings.Contains(body, "replica "+other+" has other values of BRIDGE_DEVICES, BRIDGE_DEVICES_EXCLUDE and BRIDGE_GROUPS")
		}
	}
	readyz(t, a, "that b has different devices", said("b"))
	readyz(t, b, "that a has different devices", said("a"))
	end()
	readyz(t, a, "that it is over", func(status int, body string) bool {
		return status == http.StatusOK && !strings.Contains(body, "has other values")
	})
}
