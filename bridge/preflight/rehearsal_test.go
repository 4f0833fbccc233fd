package preflight_test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"plaspy-bridge/bridge/preflight"
	"plaspy-bridge/bridge/sim"
)

// TestEmbeddedConfiguration: a file that keeps the bridge itself out, or from
// JetStream, is found out before the bridge runs.
func TestEmbeddedConfiguration(t *testing.T) {
	t.Parallel()
	const users = `authorization { users: [{user: bridge, password: "s3cret-password"}, {user: little, password: "s3cret-password", permissions: {publish: "plaspy.>"}}] }`
	for _, row := range []struct {
		name, file, user string
		warn, fail       int
		want             []string
	}{
		{"no login required", `jetstream: enabled`, "", 0, 0, []string{`ok   JetStream: `, `ok   permissions: `}},
		{"a user that is there", users, "bridge", 0, 0, []string{`ok   JetStream: `}},
		{"no user", users, "", 0, 1, []string{`FAIL NATS: .* refuses the bridge's login: set NATS_USER`}},
		{"another user", users, "other", 0, 1, []string{`FAIL NATS: .* refuses the bridge's login`}},
		{"a user who may do little", users, "little", 2, -1, []string{`FAIL permissions: .* allow this user to publish to \$JS.API.STREAM.MSG.GET.PLASPY_INBOUND`}},
		{"an account without JetStream", `jetstream: enabled
			accounts { A { users: [{user: bridge, password: "s3cret-password"}] } }`, "bridge", 0, 1, []string{`FAIL JetStream: not enabled for this account`}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, sim.Options{})
			file := filepath.Join(t.TempDir(), "nats.conf")
			if err := os.WriteFile(file, []byte("listen: 127.0.0.1:0\n"+row.file), 0o600); err != nil {
				t.Fatal(err)
			}
			r.env("BRIDGE_EMBEDDED_CONFIG", file)
			if row.user != "" {
				r.env("NATS_USER", row.user, "NATS_PASSWORD", password)
			}
			if row.fail < 0 { // as many as there are needs
				suits := func(lines string, n preflight.Counts) bool {
					return n.Fail >= 20 && regexp.MustCompile(row.want[0]).MatchString(lines)
				}
				if lines, n := r.longer(suits); !suits(lines, n) { // each refused request waits for the limit
					t.Errorf("%d failures:\n%s", n.Fail, lines)
				}
				return
			}
			r.want(row.warn, row.fail, row.want...)
		})
	}
}
