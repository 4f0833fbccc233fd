package config

import (
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// agreement names the settings that all replicas of a prefix must share, with their
// variables. If they differ, nothing fails: a device that its owner leaves out is
// not polled at all.
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

// Agreement gives a short digest of each setting, or group of them, that all
// replicas must share, by a name for people. Lists count as sets. The
// digests are public to the replicas and hold no secret.
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
	if !c.Inbound { // one that does not post need not know for how long to try
		delete(told, "inbound age")
		delete(told, "inbound forms")
	}
	for name, text := range told {
		told[name] = fmt.Sprintf("%08x", uint32(xxhash.Sum64String(text)))
	}
	return told
}

// AgreementVariables names the variables behind a name of [Config.Agreement].
func AgreementVariables(name string) string { return agreement[name] }
