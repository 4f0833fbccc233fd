package config

import (
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// agreement maps the settings that all replicas of a prefix must share to their
// variables. A difference causes no error, but for example a device that its owner
// excludes is not polled at all.
var agreement = map[string]string{
	"account":        "PLASPY_USERNAME",
	"alerts":         "BRIDGE_ALERT_HISTORY and BRIDGE_SILENT_AFTER",
	"back-fill":      "BRIDGE_BACKFILL, BRIDGE_BACKFILL_AFTER and BRIDGE_BACKFILL_MAX",
	"daily results":  "PLASPY_DAILY_RESULTS",
	"daily usage":    "PLASPY_DAILY_USAGE",
	"devices":        "BRIDGE_DEVICES, BRIDGE_DEVICES_EXCLUDE and BRIDGE_GROUPS",
	"ignored fields": "BRIDGE_IGNORE_FIELDS",
	"event groups":   "BRIDGE_EVENT_GROUPS",
	"inbound age":    "BRIDGE_INBOUND_MAX_AGE",
	"inbound forms":  "BRIDGE_INBOUND_FORMS",
	"rate limit":     "PLASPY_RATE_LIMIT",
}

// Agreement returns a short digest of each setting, or group of settings, that all
// replicas must share, by a readable name. Lists are compared as sets. The replicas
// see the digests, which contain no secrets.
func (c Config) Agreement() map[string]string {
	set := func(list []string) string {
		list = slices.Compact(slices.Sorted(slices.Values(list)))
		return fmt.Sprintf("%q", list)
	}
	told := map[string]string{
		"account":        c.Username,
		"alerts":         fmt.Sprint(c.AlertHistory, c.SilentAfter),
		"back-fill":      fmt.Sprint("after ", c.BackfillAfter, " up to ", c.BackfillMax),
		"daily results":  fmt.Sprint(c.DailyResults),
		"daily usage":    fmt.Sprint(c.DailyUsage),
		"devices":        set(c.Devices) + set(c.DevicesExclude) + set(c.Groups),
		"ignored fields": set(c.IgnoreFields),
		"event groups":   fmt.Sprint(c.EventGroups),
		"inbound age":    fmt.Sprint(c.InboundMaxAge),
		"inbound forms":  set(c.InboundForms),
		"rate limit":     fmt.Sprint(c.RateLimit),
	}
	if !c.Backfill {
		told["back-fill"] = "off"
	}
	if !c.Inbound { // these do not matter to a replica that does not post
		delete(told, "inbound age")
		delete(told, "inbound forms")
	}
	for name, text := range told {
		told[name] = fmt.Sprintf("%08x", uint32(xxhash.Sum64String(text)))
	}
	return told
}

// AgreementVariables returns the variables behind a name of [Config.Agreement].
func AgreementVariables(name string) string { return agreement[name] }
