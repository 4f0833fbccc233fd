// Package plaspy holds the messages of plaspy-bridge as Go types, the encoding
// of ids in subjects, and functions that decode a message. It needs the standard
// library only.
//
// To read an event, a result or a dead letter, use [Decode]. To build a subject,
// use [LocationSubject] and the functions beside it. To read an answer of the
// query service, use [DecodeAnswer].
//
// Headers are map[string][]string, which nats.Header is.
package plaspy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// Names of the bridge's streams and buckets, and the first token of its subjects.
const (
	Prefix            = "plaspy"
	EventsStream      = "PLASPY_EVENTS"
	InboundStream     = "PLASPY_INBOUND"
	ResultsStream     = "PLASPY_RESULTS"
	DeadLettersStream = "PLASPY_DLQ"
	LastBucket        = "plaspy_last"
	ControlBucket     = "plaspy_control"
)

// Subjects to subscribe to, for all devices.
const (
	AllLocations   = Prefix + ".location.*"
	AllAlerts      = Prefix + ".alert.*.*"
	AllDevices     = Prefix + ".device.*"
	AllResults     = Prefix + ".result.>"
	AllDeadLetters = Prefix + ".dlq.>"
)

// Kind is the kind of a message, or of the message that a result or a dead
// letter is about.
type Kind string

// The kinds of messages. A result or a dead letter is about a location, an alert,
// or a message whose subject is unknown.
const (
	KindLocation   Kind = "location"
	KindAlert      Kind = "alert"
	KindDevice     Kind = "device"
	KindResult     Kind = "result"
	KindDeadLetter Kind = "dlq"
	KindInbound    Kind = "in"
	KindUnknown    Kind = "unknown"
)

// Location is a fix as the API gave it. The bridge vouches for DateTime, Latitude
// and Longitude. Other fields are nil if the API did not send them, or sent them
// with another type.
type Location struct {
	DateTime              string               `json:"dateTime"`        // ISO 8601 as the API spelled it; without an offset it is UTC
	Latitude              float64              `json:"latitude"`        // degrees north, WGS 84
	Longitude             float64              `json:"longitude"`       // degrees east, WGS 84
	Speed                 *float64             `json:"speed,omitempty"` // in the account's unit, km/h by default
	Course                *float64             `json:"course,omitempty"`
	Battery               *float64             `json:"battery,omitempty"` // percent
	Fuel                  *float64             `json:"fuel,omitempty"`    // percent
	Fuel2                 *float64             `json:"fuel2,omitempty"`   // percent
	Temperature           *float64             `json:"temperature,omitempty"`
	Temperature2          *float64             `json:"temperature2,omitempty"`
	SensorTime1           *float64             `json:"sensorTime1,omitempty"`
	SensorTime2           *float64             `json:"sensorTime2,omitempty"`
	SensorTime3           *float64             `json:"sensorTime3,omitempty"`
	SensorTime4           *float64             `json:"sensorTime4,omitempty"`
	InactiveSeconds       *float64             `json:"inactiveSeconds,omitempty"`
	RPM                   *float64             `json:"rpm,omitempty"`
	Milleage              *float64             `json:"milleage,omitempty"` // the API spells it so
	WarningTexts          []string             `json:"warningTexts,omitempty"`
	Warnings              []string             `json:"warnings,omitempty"`
	AlertTexts            []string             `json:"alertTexts,omitempty"`
	Alerts                []string             `json:"alerts,omitempty"`
	HasCriticalAlert      *bool                `json:"hasCriticalAlert,omitempty"`
	Attributes            map[string]*string   `json:"attributes,omitempty"`
	AccessoriesAttributes []map[string]*string `json:"accessoriesAttributes,omitempty"`
	Inputs                []*bool              `json:"inputs,omitempty"`
	Outputs               []*bool              `json:"outputs,omitempty"`

	// Raw is the JSON object that the location was decoded from, with every field
	// and every spelling. If it is set, it is written instead of the other fields.
	Raw json.RawMessage `json:"-"`
}

// UnmarshalJSON keeps the object in Raw. A field that the bridge does not vouch
// for never makes it fail.
func (l *Location) UnmarshalJSON(b []byte) error {
	var vouched struct {
		DateTime            *string
		Latitude, Longitude *float64
	}
	if err := json.Unmarshal(b, &vouched); err != nil {
		return err
	}
	type plain Location
	p, err := lenient[plain](b)
	if err != nil {
		return err
	}
	*l = Location(p)
	if vouched.DateTime == nil || vouched.Latitude == nil || vouched.Longitude == nil {
		return errors.New("a location needs dateTime, latitude and longitude")
	}
	l.Raw = append(json.RawMessage(nil), b...)
	return nil
}

// MarshalJSON writes Raw if it is set, and the fields otherwise.
func (l Location) MarshalJSON() ([]byte, error) {
	if l.Raw != nil {
		return l.Raw, nil
	}
	type plain Location
	return json.Marshal(plain(l))
}

// lenient decodes a JSON object and leaves out fields of another type than
// expected.
func lenient[T any](b []byte) (T, error) {
	var v T
	if json.Unmarshal(b, &v) == nil {
		return v, nil
	}
	var good T
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(b, &fields); err != nil {
		return good, err
	}
	for name, value := range fields {
		field, err := json.Marshal(map[string]json.RawMessage{name: value})
		if err != nil {
			return good, err
		}
		var alone T
		if json.Unmarshal(field, &alone) == nil {
			_ = json.Unmarshal(field, &good) // was tried
		}
	}
	return good, nil
}

// LocationEvent is a new or changed last location of a device.
type LocationEvent struct {
	DeviceID   string    `json:"deviceId"`
	Name       string    `json:"name,omitempty"` // in the device list
	ObservedAt time.Time `json:"observedAt"`     // when the API answered
	// Backfilled marks a fix between two polls that was asked for afterwards.
	Backfilled bool `json:"backfilled,omitempty"`
	// Groups are the ids of the device's groups, with BRIDGE_EVENT_GROUPS only.
	Groups []string `json:"groups,omitempty"`
	// Origin is "inbound" if the bridge itself posted this location.
	Origin   string   `json:"origin,omitempty"`
	Location Location `json:"location"`
}

// States of an alert.
const (
	Raised  = "raised"
	Cleared = "cleared"
)

// AlertEvent is an alert that was raised or cleared, with the time and position
// of the fix that showed it.
type AlertEvent struct {
	DeviceID   string    `json:"deviceId"`
	Name       string    `json:"name,omitempty"` // of the device
	Alert      string    `json:"alert"`
	State      string    `json:"state"` // Raised or Cleared
	Critical   bool      `json:"critical"`
	Texts      Texts     `json:"texts,omitempty"`
	DateTime   string    `json:"dateTime"` // of the fix, as the API spelled it
	Latitude   float64   `json:"latitude"`
	Longitude  float64   `json:"longitude"`
	Source     string    `json:"source,omitempty"` // "history", "bridge", or empty for a polled fix
	Groups     []string  `json:"groups,omitempty"`
	ObservedAt time.Time `json:"observedAt"`
}

// Device is a device as the API gave it.
type Device struct {
	ID          string             `json:"id"`
	Name        *string            `json:"name,omitempty"`
	Description *string            `json:"description,omitempty"`
	MIN         *string            `json:"min,omitempty"` // the phone number of its SIM card
	Tags        map[string]*string `json:"tags,omitempty"`
	Expires     *string            `json:"expires,omitempty"`

	// Raw is the JSON object that the device was decoded from.
	Raw json.RawMessage `json:"-"`
}

// UnmarshalJSON keeps the object in Raw. A field of another type than expected
// is left out.
func (d *Device) UnmarshalJSON(b []byte) error {
	type plain Device
	p, err := lenient[plain](b)
	if err != nil {
		return err
	}
	*d = Device(p)
	d.Raw = append(json.RawMessage(nil), b...)
	return nil
}

// Texts are the texts of an alert. An element that is not a string is kept as its
// JSON.
type Texts []string

// UnmarshalJSON accepts an array of anything.
func (t *Texts) UnmarshalJSON(b []byte) error {
	var elements []json.RawMessage
	if err := json.Unmarshal(b, &elements); err != nil {
		return err
	}
	*t = nil
	for _, e := range elements {
		text := string(e)
		if strings.HasPrefix(text, `"`) {
			if err := json.Unmarshal(e, &text); err != nil {
				return err
			}
		}
		*t = append(*t, text)
	}
	return nil
}

// DeviceEvent is a device that was added, changed or removed.
type DeviceEvent struct {
	DeviceID   string    `json:"deviceId"`
	Change     string    `json:"change"` // "added", "changed" or "removed"
	Device     Device    `json:"device"`
	ObservedAt time.Time `json:"observedAt"`
}

// Result is the outcome of an inbound message: the API took it (Posted), or it
// became a dead letter.
type Result struct {
	DeviceID string `json:"deviceId"` // empty if the message's subject does not name a device
	Kind     Kind   `json:"kind"`
	ID       string `json:"id"`                // the message's Nats-Msg-Id, or PLASPY_INBOUND:<sequence>
	IDBytes  int    `json:"idBytes,omitempty"` // the size of an id of which ID is only the beginning
	Posted   bool   `json:"posted"`
	Status   int    `json:"status"` // of the API's last answer; 0 if there was none
	Attempts int    `json:"attempts"`
	// Items are the outcomes of the elements of a batch, in their order.
	Items     []ResultItem `json:"items,omitempty"`
	ItemCount int          `json:"itemCount,omitempty"` // their number, if they were too large for a message

	PostedAt      *time.Time      `json:"postedAt,omitempty"`      // if posted
	Response      json.RawMessage `json:"response,omitempty"`      // if posted: the API's body
	ResponseBytes *int            `json:"responseBytes,omitempty"` // the size of a body that was too large for a message

	Reason     string `json:"reason,omitempty"`     // if not posted: why it is not tried again
	Error      string `json:"error,omitempty"`      // if not posted: an excerpt of the answer
	DeadLetter uint64 `json:"deadLetter,omitempty"` // if not posted: its sequence in DeadLettersStream
}

// ResultItem is the outcome of one element of a batch.
type ResultItem struct {
	Status int    `json:"status"`
	Posted bool   `json:"posted"`
	Error  string `json:"error,omitempty"`
}

// InboundLocation is a location to post. Publish it, or a JSON array of them as a
// batch, on InLocationSubject.
type InboundLocation struct {
	DeviceID string   `json:"deviceId,omitempty"` // if given, the subject's device
	From     string   `json:"from,omitempty"`     // location.dateTime if absent
	To       string   `json:"to,omitempty"`       // location.dateTime if absent
	Location Location `json:"location"`
}

// UnmarshalJSON also accepts a bare location.
func (l *InboundLocation) UnmarshalJSON(b []byte) error {
	type plain InboundLocation
	var form struct {
		plain
		Location json.RawMessage `json:"location"`
	}
	if err := json.Unmarshal(b, &form); err != nil {
		return err
	}
	*l = InboundLocation(form.plain)
	if len(form.Location) > 0 && string(form.Location) != "null" {
		b = form.Location
	}
	return json.Unmarshal(b, &l.Location)
}

// InboundAlert is an alert to post: AlertName and DateTime, or From and To with or
// without AlertName. Publish it on InAlertSubject.
type InboundAlert struct {
	DeviceID  string `json:"deviceId,omitempty"` // if given, the subject's device
	AlertName string `json:"alertName,omitempty"`
	DateTime  string `json:"dateTime,omitempty"`
	From      string `json:"from,omitempty"`
	To        string `json:"to,omitempty"`
}

// UnmarshalJSON also accepts an alert event.
func (a *InboundAlert) UnmarshalJSON(b []byte) error {
	type plain InboundAlert
	var form struct {
		plain
		Alert string `json:"alert"`
	}
	if err := json.Unmarshal(b, &form); err != nil {
		return err
	}
	*a = InboundAlert(form.plain)
	if a.AlertName == "" {
		a.AlertName = form.Alert
	}
	return nil
}

// DeadLetter is an inbound message that is not tried again.
type DeadLetter struct {
	Kind      Kind
	DeviceID  string              // empty if Kind is KindUnknown
	Body      []byte              // the inbound message's, untouched
	Header    map[string][]string // the inbound message's, Nats-* headers under their own names
	Reason    string              // why it is not tried again
	Error     string              // an excerpt of the API's answer
	Attempts  int
	Subject   string    // that the message came from
	Sequence  uint64    // in InboundStream
	Status    int       // of the API's last answer; 0 if there was none
	FirstTry  time.Time // zero if it was never posted
	LastTry   time.Time
	Truncated int // the size of a body of which Body is only a part; 0 if it is whole
}

// Range is the question of the query service's locations and alerts.
type Range struct {
	From      string `json:"from"`
	To        string `json:"to"`
	AlertName string `json:"alertName,omitempty"` // alerts only
}

// DevicesAnswer is the API's device list.
type DevicesAnswer struct {
	APIAnswer
	Devices []Device `json:"devices,omitempty"`
}

// DeviceAnswer is one device as the API answered it.
type DeviceAnswer struct {
	APIAnswer
	Device Device `json:"device,omitzero"`
}

// LastAnswer is a last location as the API answered it. LastLocation is nil if the
// device has never reported. Decode it as a [Location].
type LastAnswer struct {
	APIAnswer
	LastLocation json.RawMessage `json:"lastLocation,omitempty"`
}

// LocationsAnswer is the locations of a range. Decode each as a [Location].
type LocationsAnswer struct {
	APIAnswer
	Locations []json.RawMessage `json:"locations,omitempty"`
}

// AlertsAnswer is the alerts of a range.
type AlertsAnswer struct {
	APIAnswer
	Alerts []HistoricAlert `json:"alerts,omitempty"`
}

// APIAnswer is the part that every answer of the API has.
type APIAnswer struct {
	Success       bool     `json:"success,omitempty"`
	Error         *string  `json:"error,omitempty"`
	APIUsage      *float64 `json:"apiUsage,omitempty"`
	APIDailyUsage *float64 `json:"apiDailyUsage,omitempty"`
}

// HistoricAlert is one entry of the API's alert history.
type HistoricAlert struct {
	DateTime      string   `json:"dateTime,omitempty"`
	Latitude      *float64 `json:"latitude,omitempty"`
	Longitude     *float64 `json:"longitude,omitempty"`
	Text          *string  `json:"text,omitempty"`
	Notifications []string `json:"notifications,omitempty"`
	Alerts        []string `json:"alerts,omitempty"`
}

// WhyAnswer is the last decisions on a device.
type WhyAnswer struct {
	DeviceID string     `json:"deviceId"`
	Plan     string     `json:"plan"`           // in one line, for a person
	Next     *time.Time `json:"next,omitempty"` // when the next poll is due
	Reason   string     `json:"reason"`         // why then, in one word
	Held     string     `json:"held,omitempty"` // the reason that its polls are held back now
	// Control are the entries of live control in force for it, the most particular
	// one first.
	Control   []ControlEffect `json:"control,omitempty"`
	Decisions []Decision      `json:"decisions"` // newest first
}

// PollAnswer is the result of a poll that was asked for. Its events are in
// EventsStream by then.
type PollAnswer struct {
	DeviceID string `json:"deviceId"`
	Decision
}

// ControlEffect is the settings of a device that one entry of live control decides.
type ControlEffect struct {
	Entry    string     `json:"entry"`              // its key in ControlBucket
	Interval string     `json:"interval,omitempty"` // as [time.ParseDuration] reads it
	Weight   float64    `json:"weight,omitempty"`
	Paused   *bool      `json:"paused,omitempty"`
	Until    *time.Time `json:"until,omitempty"`
	SetBy    string     `json:"setBy,omitempty"` // free text
	SetAt    time.Time  `json:"setAt"`

	// Of the fleet's entry.
	RateLimit      int      `json:"rateLimit,omitempty"`      // requests a minute, of all replicas together
	Devices        []string `json:"devices,omitempty"`        // ids or globs: only these are polled
	DevicesExclude []string `json:"devicesExclude,omitempty"` // ids or globs: these are not polled
}

// ControlEntry is a value of ControlBucket about a device or a group. A field that is
// not set changes nothing.
type ControlEntry struct {
	Interval string     `json:"interval,omitempty"` // the longest time without a poll, as [time.ParseDuration] reads it
	Weight   float64    `json:"weight,omitempty"`   // 0.1 to 64; other devices have 1
	Paused   *bool      `json:"paused,omitempty"`
	Until    *time.Time `json:"until,omitempty"` // when the entry ends
	SetBy    string     `json:"set_by,omitempty"`
}

// FleetControlEntry is the value of ControlBucket about the whole fleet.
type FleetControlEntry struct {
	ControlEntry
	RateLimit int      `json:"rate_limit,omitempty"` // requests a minute; lowers PLASPY_RATE_LIMIT
	LogLevel  string   `json:"log_level,omitempty"`  // debug, info, warn or error
	Devices   []string `json:"devices,omitempty"`    // ids or globs: only these are polled
	Exclude   []string `json:"devices_exclude,omitempty"`
}

// FleetControlKey is the key of a [FleetControlEntry] in ControlBucket.
const FleetControlKey = "fleet"

// DeviceControlKey is the key of a device's [ControlEntry] in ControlBucket.
func DeviceControlKey(deviceID string) string { return "device." + EncodeDevice(deviceID) }

// GroupControlKey is the key of a group's [ControlEntry], by its id or its name.
func GroupControlKey(group string) string { return "group." + EncodeDevice(group) }

// Decision is the outcome of one or several polls of a device.
type Decision struct {
	At        time.Time `json:"at"`
	Result    string    `json:"result"`
	Detail    string    `json:"detail,omitempty"`
	Fields    []string  `json:"fields,omitempty"` // that changed
	Times     int       `json:"times,omitempty"`  // polls in a row with this outcome; 0 means one
	Published int       `json:"published,omitempty"`
	ID        string    `json:"id,omitempty"`       // ce-id of the last event
	Sequence  uint64    `json:"sequence,omitempty"` // of the last event, in EventsStream
}

// QueryError is an answer of the query service that is an error.
type QueryError struct {
	Code int    // as HTTP has them: 429 if the budget has no room, 504 if the API did not answer in time
	Text string // for a person
}

// Error gives code and text.
func (e *QueryError) Error() string { return strconv.Itoa(e.Code) + " " + e.Text }

// DecodeAnswer decodes an answer of the query service into v, which points to the
// type of the question's answer. An answer that is an error is a *[QueryError].
func DecodeAnswer(header map[string][]string, data []byte, v any) error {
	if text := first(header, "Nats-Service-Error"); text != "" {
		code, _ := strconv.Atoi(first(header, "Nats-Service-Error-Code")) // 0 if it is malformed
		return &QueryError{code, text}
	}
	return json.Unmarshal(data, v)
}

// Metadata is the CloudEvents attributes of an event or a result. The same event
// always has the same ID.
type Metadata struct {
	ID           string
	Type         string // com.plaspy.location, .alert, .device or .result
	Source       string
	PartitionKey string    // the device's token, for readers that divide the messages
	Time         time.Time // of the fix; of a device event ObservedAt; of a result when it was decided
	RecordedTime time.Time // when the API answered the poll; zero for other messages
	Severity     int       // of an alert: 17 critical and raised, 13 raised, 9 cleared; else 0
	CausationID  string    // of a result: the ID of the inbound message; else empty
	TraceParent  string    // W3C Trace Context; empty if tracing is off
}

// ReadMetadata reads the headers of an event or a result. Absent or malformed
// ones leave their fields empty.
func ReadMetadata(header map[string][]string) Metadata {
	m := Metadata{
		ID: first(header, "ce-id"), Type: first(header, "ce-type"), Source: first(header, "ce-source"), PartitionKey: first(header, "ce-partitionkey"),
		CausationID: first(header, "ce-causationid"), TraceParent: first(header, "traceparent"),
	}
	m.Time, _ = time.Parse(time.RFC3339, first(header, "ce-time"))
	m.RecordedTime, _ = time.Parse(time.RFC3339, first(header, "ce-recordedtime"))
	m.Severity, _ = strconv.Atoi(first(header, "ce-severitynumber"))
	return m
}

// ErrUnknown says that a message is none of the bridge's.
var ErrUnknown = errors.New("not a message of plaspy-bridge")

// Decode decodes an event, a result, a dead letter or an inbound message. It goes
// by the subject, and if the subject is another one (an entry of LastBucket, a
// result on a reply subject, a copy) by the header ce-type. The value is a
// *[LocationEvent], *[AlertEvent], *[DeviceEvent], *[Result], *[DeadLetter] or
// *[InboundAlert], or of an inbound location or batch a [][InboundLocation].
func Decode(subject string, header map[string][]string, data []byte) (any, error) {
	a, err := ParseSubject(subject)
	if err != nil {
		kind, _ := strings.CutPrefix(first(header, "ce-type"), "com.plaspy.")
		a = Address{Direction: Kind(kind)}
	}
	var v any
	switch a.Direction {
	case KindLocation:
		v = new(LocationEvent)
	case KindAlert:
		v = new(AlertEvent)
	case KindDevice:
		v = new(DeviceEvent)
	case KindResult:
		v = new(Result)
	case KindDeadLetter:
		return decodeDeadLetter(a, header, data), nil
	case KindInbound:
		return decodeInbound(a.Kind, mediaType(first(header, "content-type")), data)
	default:
		return nil, fmt.Errorf("%w: subject %q", ErrUnknown, subject)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return nil, fmt.Errorf("decode %s: %w", subject, err)
	}
	return v, nil
}

// decodeInbound decodes one location, a JSON array or NDJSON of them, or an alert,
// each also as the data of a CloudEvent in structured mode.
func decodeInbound(kind Kind, contentType string, data []byte) (any, error) {
	if contentType == "application/cloudevents+json" {
		var event struct {
			Data            json.RawMessage `json:"data"`
			DataBase64      []byte          `json:"data_base64"`
			DataContentType string          `json:"datacontenttype"`
		}
		if err := json.Unmarshal(data, &event); err != nil {
			return nil, err
		}
		data, contentType = event.Data, mediaType(event.DataContentType)
		var text string
		if event.DataBase64 != nil {
			data = event.DataBase64
		} else if json.Unmarshal(data, &text) == nil {
			data = []byte(text)
		}
	}
	if kind == KindAlert {
		alert := new(InboundAlert)
		err := json.Unmarshal(data, alert)
		return alert, err
	}
	var locations []InboundLocation
	if strings.HasPrefix(strings.TrimSpace(string(data)), "[") && contentType != "application/x-ndjson" {
		err := json.Unmarshal(data, &locations)
		return locations, err
	}
	for d := json.NewDecoder(bytes.NewReader(data)); ; {
		var l InboundLocation
		if err := d.Decode(&l); errors.Is(err, io.EOF) && len(locations) > 0 {
			return locations, nil
		} else if err != nil {
			return nil, err
		}
		locations = append(locations, l)
	}
}

func mediaType(s string) string {
	s, _, _ = strings.Cut(s, ";")
	return strings.ToLower(strings.TrimSpace(s))
}

// original is set in front of those headers of a dead letter that have a meaning
// to a NATS server.
const original = "Plaspy-Original-"

func decodeDeadLetter(a Address, header map[string][]string, data []byte) *DeadLetter {
	d := &DeadLetter{
		Kind: a.Kind, DeviceID: a.DeviceID, Body: data, Header: make(map[string][]string),
		Reason: first(header, "Plaspy-Reason"), Error: first(header, "Plaspy-Error"), Subject: first(header, "Plaspy-Subject"),
	}
	d.Attempts, _ = strconv.Atoi(first(header, "Plaspy-Attempts"))
	d.Status, _ = strconv.Atoi(first(header, "Plaspy-Status"))
	d.Truncated, _ = strconv.Atoi(first(header, "Plaspy-Truncated"))
	d.Sequence, _ = strconv.ParseUint(first(header, "Plaspy-Sequence"), 10, 64)
	d.FirstTry, _ = time.Parse(time.RFC3339, first(header, "Plaspy-First-Try"))
	d.LastTry, _ = time.Parse(time.RFC3339, first(header, "Plaspy-Last-Try"))
	for name, values := range header {
		if restored, ok := strings.CutPrefix(name, original); ok {
			d.Header[restored] = values
		} else if !strings.HasPrefix(name, "Plaspy-") && !strings.HasPrefix(name, "Nats-") {
			d.Header[name] = values
		}
	}
	return d
}

func first(header map[string][]string, name string) string {
	if values := header[name]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// EncodeDevice writes a device's id, or an alert's name, as one token of a
// subject: every byte but ASCII letters, digits, - and _ becomes = and two
// upper-case hex digits.
func EncodeDevice(id string) string {
	var b strings.Builder
	for i := 0; i < len(id); i++ {
		if c := id[i]; plain(c) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "=%02X", c)
		}
	}
	return b.String()
}

// DecodeDevice is the inverse of [EncodeDevice]. It accepts only the one spelling
// that EncodeDevice writes.
func DecodeDevice(token string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(token); i++ {
		c := token[i]
		if c == '=' && i+2 < len(token) {
			n, err := strconv.ParseUint(token[i+1:i+3], 16, 8)
			if err != nil {
				return "", fmt.Errorf("token %q: %w", token, err)
			}
			c = byte(n)
			i += 2
		}
		b.WriteByte(c)
	}
	if EncodeDevice(b.String()) != token {
		return "", fmt.Errorf("token %q is not an encoded id", token)
	}
	return b.String(), nil
}

func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

// LocationSubject is the subject of a device's location events.
func LocationSubject(deviceID string) string { return Prefix + ".location." + EncodeDevice(deviceID) }

// AlertSubject is the subject of one alert of a device.
func AlertSubject(deviceID, alert string) string {
	return Prefix + ".alert." + EncodeDevice(deviceID) + "." + EncodeDevice(alert)
}

// DeviceSubject is the subject of a device's own events.
func DeviceSubject(deviceID string) string { return Prefix + ".device." + EncodeDevice(deviceID) }

// InLocationSubject is the subject to publish a location of a device to.
func InLocationSubject(deviceID string) string {
	return Prefix + ".in.location." + EncodeDevice(deviceID)
}

// InAlertSubject is the subject to publish an alert of a device to.
func InAlertSubject(deviceID string) string { return Prefix + ".in.alert." + EncodeDevice(deviceID) }

// ResultSubject is the subject of results; kind is KindLocation or KindAlert.
func ResultSubject(kind Kind, deviceID string) string {
	return Prefix + ".result." + string(kind) + "." + EncodeDevice(deviceID)
}

// DeadLetterSubject is the subject of dead letters; kind is KindLocation or
// KindAlert.
func DeadLetterSubject(kind Kind, deviceID string) string {
	return Prefix + ".dlq." + string(kind) + "." + EncodeDevice(deviceID)
}

// QuerySubject is the subject of a question about a device: device, last,
// locations, alerts, why or poll.
func QuerySubject(question, deviceID string) string {
	return Prefix + ".api." + question + "." + EncodeDevice(deviceID)
}

// DevicesQuerySubject is the subject of the question for the device list.
const DevicesQuerySubject = Prefix + ".api.devices"

// Address is the meaning of a subject.
type Address struct {
	// Direction is the kind of an event, KindResult, KindDeadLetter or KindInbound.
	Direction Kind
	// Kind is the kind of the event, of the inbound message, or of the message that
	// a result or a dead letter is about.
	Kind     Kind
	DeviceID string
	Alert    string // of an alert event
}

// ParseSubject reads the subject of an event, a result, a dead letter or an inbound
// message. The error wraps [ErrUnknown] for any other subject.
func ParseSubject(subject string) (Address, error) {
	unknown := fmt.Errorf("%w: subject %q", ErrUnknown, subject)
	rest, ok := strings.CutPrefix(subject, Prefix+".")
	if !ok {
		return Address{}, unknown
	}
	tokens := strings.Split(rest, ".")
	a := Address{Direction: Kind(tokens[0]), Kind: Kind(tokens[0])}
	tokens = tokens[1:]
	switch a.Direction {
	case KindResult, KindDeadLetter, KindInbound:
		if a.Direction == KindDeadLetter && len(tokens) == 1 && tokens[0] == string(KindUnknown) {
			a.Kind = KindUnknown
			return a, nil
		}
		if len(tokens) != 2 || tokens[0] != string(KindLocation) && tokens[0] != string(KindAlert) {
			return Address{}, unknown
		}
		a.Kind, tokens = Kind(tokens[0]), tokens[1:]
	case KindAlert:
		if len(tokens) != 2 {
			return Address{}, unknown
		}
		var err error
		if a.Alert, err = DecodeDevice(tokens[1]); err != nil {
			return Address{}, fmt.Errorf("%w: %w", unknown, err)
		}
		tokens = tokens[:1]
	case KindLocation, KindDevice:
	default:
		return Address{}, unknown
	}
	if len(tokens) != 1 {
		return Address{}, unknown
	}
	var err error
	if a.DeviceID, err = DecodeDevice(tokens[0]); err != nil {
		return Address{}, fmt.Errorf("%w: %w", unknown, err)
	}
	return a, nil
}
