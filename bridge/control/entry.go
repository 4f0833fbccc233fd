package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
	"unicode"

	"plaspy-bridge/auth/redact"
	"plaspy-bridge/bridge/glob"
	"plaspy-bridge/publisher"
)

// FleetKey is the key of the entry for all devices.
const FleetKey = "fleet"

const (
	devicePrefix = "device."
	groupPrefix  = "group."
)

// DeviceKey returns the key of a device's entry.
func DeviceKey(id string) string { return devicePrefix + publisher.Encode(id) }

// GroupKey returns the key of a group's entry, by its id or its name.
func GroupKey(name string) string { return groupPrefix + publisher.Encode(name) }

// Title returns a key for people, with the device or group as it is spelt.
func Title(key string) string {
	kind, token, found := strings.Cut(key, ".")
	id, err := publisher.Decode(token)
	if !found || err != nil || !printable(id) {
		return key
	}
	return kind + " " + id
}

const (
	minInterval = 100 * time.Millisecond
	minWeight   = 0.1
	maxWeight   = 64
	maxRate     = 1_000_000
	// maxValue is the largest value in bytes that is read.
	maxValue = 64 << 10
	// maxText is the longest set_by in bytes that is kept.
	maxText = 128
	// maxPatterns limits devices and devices_exclude.
	maxPatterns = 1000
)

// Entry is the readable value of one key. A field that the value does not set is
// zero, or nil if zero has a meaning.
type Entry struct {
	Interval time.Duration // the longest that a device goes without a poll
	Weight   float64       // how much the delay of a device counts beside 1 for the others
	Paused   *bool
	Until    time.Time // when the entry ends; zero means never
	SetBy    string    // free text

	// Of the fleet only.
	RateLimit int // requests a minute, of all replicas together
	LogLevel  *slog.Level
	Devices   []string // ids or globs: only these are polled; empty but not nil means all
	Exclude   []string // ids or globs: these are not polled

	// Ignored are the names of the value's other fields, sorted.
	Ignored []string
}

// value is an entry as it is written.
type value struct {
	Interval  string     `json:"interval,omitempty"`
	Weight    float64    `json:"weight,omitempty"`
	Paused    *bool      `json:"paused,omitempty"`
	Until     *time.Time `json:"until,omitempty"`
	RateLimit int        `json:"rate_limit,omitempty"`
	LogLevel  string     `json:"log_level,omitempty"`
	Devices   *[]string  `json:"devices,omitempty"`
	Exclude   *[]string  `json:"devices_exclude,omitempty"`
	SetBy     string     `json:"set_by,omitempty"`
}

// Encode returns the value that [Parse] reads as e.
func (e *Entry) Encode() []byte {
	v := value{Weight: e.Weight, Paused: e.Paused, RateLimit: e.RateLimit, SetBy: e.SetBy}
	if e.Interval != 0 {
		v.Interval = e.Interval.String()
	}
	if !e.Until.IsZero() {
		v.Until = &e.Until
	}
	if e.LogLevel != nil {
		v.LogLevel = strings.ToLower(e.LogLevel.String())
	}
	if e.Devices != nil {
		v.Devices = &e.Devices
	}
	if e.Exclude != nil {
		v.Exclude = &e.Exclude
	}
	data, err := json.Marshal(v)
	if err != nil { // a weight that is not a number, or a year that has five digits
		return nil
	}
	return data
}

// Parse reads the value of a key. Its error names every fault, and no content of
// the value. Fields that are unknown, or that the key cannot have, are
// [Entry.Ignored].
func Parse(key string, data []byte) (Entry, error) {
	if err := checkKey(key); err != nil {
		return Entry{}, err
	}
	if len(data) > maxValue {
		return Entry{}, fmt.Errorf("the value is larger than %d bytes", maxValue)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil || fields == nil {
		return Entry{}, errors.New("the value is not a JSON object")
	}
	var e Entry
	var faults []error
	for name, raw := range fields {
		read := fieldOf(key, name)
		switch {
		case string(raw) == "null": // as if it were absent
		case read == nil:
			e.Ignored = append(e.Ignored, redact.Line(name, maxText))
		default:
			if want := read(&e, raw); want != "" {
				faults = append(faults, fmt.Errorf("%s: expected %s", name, want))
			}
		}
	}
	if len(faults) > 0 {
		slices.SortFunc(faults, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
		return Entry{}, oneLine(faults)
	}
	slices.Sort(e.Ignored)
	return e, nil
}

func oneLine(faults []error) error {
	texts := make([]string, len(faults))
	for i, err := range faults {
		texts[i] = err.Error()
	}
	return errors.New(strings.Join(texts, "; "))
}

// checkKey returns an error for a key that means nothing.
func checkKey(key string) error {
	if key == FleetKey {
		return nil
	}
	kind, token, _ := strings.Cut(key, ".")
	if kind+"." != devicePrefix && kind+"." != groupPrefix {
		return errors.New("the key must be device.<device>, group.<group> or fleet")
	}
	if id, err := publisher.Decode(token); err != nil || id == "" {
		return fmt.Errorf("the key does not name a %s: every byte but ASCII letters, digits, - and _ is written as = and two upper-case hex digits", kind)
	}
	return nil
}

// reader sets a field of an entry. It returns what would be right, or "".
type reader func(e *Entry, raw json.RawMessage) (want string)

// fieldOf returns the reader of a field, or nil if the key has no such field.
func fieldOf(key, name string) reader {
	switch name {
	case "interval":
		return readInterval
	case "weight":
		return readWeight
	case "paused":
		return readPaused
	case "until":
		return readUntil
	case "set_by":
		return readSetBy
	}
	if key != FleetKey {
		return nil
	}
	switch name {
	case "rate_limit":
		return readRateLimit
	case "log_level":
		return readLogLevel
	case "devices":
		return func(e *Entry, raw json.RawMessage) string { return readPatterns(&e.Devices, raw) }
	case "devices_exclude":
		return func(e *Entry, raw json.RawMessage) string { return readPatterns(&e.Exclude, raw) }
	}
	return nil
}

func readInterval(e *Entry, raw json.RawMessage) string {
	var text string
	d, err := time.Duration(0), json.Unmarshal(raw, &text)
	if err == nil {
		d, err = time.ParseDuration(text)
	}
	if err != nil || d < minInterval {
		return "a duration with its unit in quotes, such as \"5s\", at least " + minInterval.String()
	}
	e.Interval = d
	return ""
}

func readWeight(e *Entry, raw json.RawMessage) string {
	if json.Unmarshal(raw, &e.Weight) != nil || !(e.Weight >= minWeight && e.Weight <= maxWeight) {
		return fmt.Sprintf("a number, %v to %v", minWeight, maxWeight)
	}
	return ""
}

func readPaused(e *Entry, raw json.RawMessage) string {
	if json.Unmarshal(raw, &e.Paused) != nil {
		return "true or false"
	}
	return ""
}

func readUntil(e *Entry, raw json.RawMessage) string {
	if json.Unmarshal(raw, &e.Until) != nil || e.Until.IsZero() {
		return "a time such as \"2026-01-02T03:04:05Z\""
	}
	return ""
}

func readSetBy(e *Entry, raw json.RawMessage) string {
	if json.Unmarshal(raw, &e.SetBy) != nil {
		return "a text"
	}
	e.SetBy = redact.Line(e.SetBy, maxText)
	return ""
}

func readRateLimit(e *Entry, raw json.RawMessage) string {
	if json.Unmarshal(raw, &e.RateLimit) != nil || e.RateLimit < 1 || e.RateLimit > maxRate {
		return fmt.Sprintf("a whole number, 1 to %d", maxRate)
	}
	return ""
}

func readLogLevel(e *Entry, raw json.RawMessage) string {
	var text string
	var level slog.Level
	if json.Unmarshal(raw, &text) != nil || level.UnmarshalText([]byte(text)) != nil {
		return "debug, info, warn or error"
	}
	e.LogLevel = &level
	return ""
}

// readPatterns reads a list of ids and globs, or the same as one text with commas,
// as the environment has it.
func readPatterns(to *[]string, raw json.RawMessage) string {
	const want = "a list of device ids or globs"
	var list []string
	if text := ""; json.Unmarshal(raw, &text) == nil {
		list = strings.Split(text, ",")
	} else if json.Unmarshal(raw, &list) != nil {
		return want
	}
	kept := []string{}
	for _, pattern := range list {
		if pattern = strings.TrimSpace(pattern); pattern == "" {
			continue
		}
		if err := glob.Check(pattern); err != nil {
			return want + " (" + err.Error() + ")"
		}
		kept = append(kept, pattern)
	}
	if len(kept) > maxPatterns {
		return fmt.Sprintf("%s, %d at most", want, maxPatterns)
	}
	*to = kept
	return ""
}

// printable reports whether a text is fit for a terminal as it is.
func printable(text string) bool {
	unfit := func(r rune) bool { return r == unicode.ReplacementChar || !unicode.IsPrint(r) }
	return text != "" && len(text) <= maxText && !strings.ContainsFunc(text, unfit)
}

// Describe returns the settings in words, for people.
func (e *Entry) Describe() string {
	var texts []string
	add := func(set bool, format string, args ...any) {
		if set {
			texts = append(texts, fmt.Sprintf(format, args...))
		}
	}
	add(e.Interval > 0, "interval %s", e.Interval)
	add(e.Weight > 0, "weight %g", e.Weight)
	add(e.Paused != nil && *e.Paused, "paused")
	add(e.Paused != nil && !*e.Paused, "not paused")
	add(e.RateLimit > 0, "rate limit %d a minute", e.RateLimit)
	if e.LogLevel != nil {
		add(true, "log level %s", strings.ToLower(e.LogLevel.String()))
	}
	add(e.Devices != nil, "devices %q", e.Devices)
	add(e.Exclude != nil, "devices excluded %q", e.Exclude)
	add(len(texts) == 0, "nothing")
	add(!e.Until.IsZero(), "until %s", e.Until.UTC().Format(time.RFC3339))
	add(len(e.Ignored) > 0, "ignored: %s", strings.Join(e.Ignored, ", "))
	return strings.Join(texts, ", ")
}
