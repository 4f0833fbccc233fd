package config

import (
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// agreed is a setting, or a group of settings, that all replicas of a prefix must share.
type agreed struct {
	name      string
	variables string
	posts     bool // it does not matter to a replica that does not post
	text      func(Config) string
}

// agreement lists what must be shared. A difference causes no error, but for example a
// device that its owner excludes is not polled at all.
var agreement = []agreed{
	{name: "account", variables: "PLASPY_USERNAME", text: func(c Config) string { return c.Username }},
	{name: "alerts", variables: "BRIDGE_ALERT_HISTORY and BRIDGE_SILENT_AFTER",
		text: func(c Config) string { return fmt.Sprint(c.AlertHistory, c.SilentAfter) }},
	{name: "back-fill", variables: "BRIDGE_BACKFILL, BRIDGE_BACKFILL_AFTER and BRIDGE_BACKFILL_MAX",
		text: func(c Config) string {
			if !c.Backfill {
				return "off"
			}
			return fmt.Sprint("after ", c.BackfillAfter, " up to ", c.BackfillMax)
		}},
	{name: "daily results", variables: "PLASPY_DAILY_RESULTS",
		text: func(c Config) string { return fmt.Sprint(c.DailyResults) }},
	{name: "daily usage", variables: "PLASPY_DAILY_USAGE",
		text: func(c Config) string { return fmt.Sprint(c.DailyUsage) }},
	{name: "devices", variables: "BRIDGE_DEVICES, BRIDGE_DEVICES_EXCLUDE and BRIDGE_GROUPS",
		text: func(c Config) string { return set(c.Devices) + set(c.DevicesExclude) + set(c.Groups) }},
	{name: "ignored fields", variables: "BRIDGE_IGNORE_FIELDS",
		text: func(c Config) string { return set(c.IgnoreFields) }},
	{name: "event groups", variables: "BRIDGE_EVENT_GROUPS",
		text: func(c Config) string { return fmt.Sprint(c.EventGroups) }},
	{name: "inbound age", variables: "BRIDGE_INBOUND_MAX_AGE", posts: true,
		text: func(c Config) string { return fmt.Sprint(c.InboundMaxAge) }},
	{name: "inbound forms", variables: "BRIDGE_INBOUND_FORMS", posts: true,
		text: func(c Config) string { return set(c.InboundForms) }},
	{name: "rate limit", variables: "PLASPY_RATE_LIMIT",
		text: func(c Config) string { return fmt.Sprint(c.RateLimit) }},
}

// set is a text of a list that is compared as a set.
func set(list []string) string {
	return fmt.Sprintf("%q", slices.Compact(slices.Sorted(slices.Values(list))))
}

// Agreement returns a short digest of each setting, or group of settings, that all
// replicas must share, by a readable name. Lists are compared as sets. The replicas
// see the digests, which contain no secrets.
func (c Config) Agreement() map[string]string {
	digests := make(map[string]string)
	for _, a := range agreement {
		if c.Inbound || !a.posts {
			digests[a.name] = fmt.Sprintf("%08x", uint32(xxhash.Sum64String(a.text(c))))
		}
	}
	return digests
}

// AgreementVariables returns the variables behind a name of [Config.Agreement], or "".
func AgreementVariables(name string) string {
	for _, a := range agreement {
		if a.name == name {
			return a.variables
		}
	}
	return ""
}
