package publisher

import (
	"encoding/binary"
	"encoding/json"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"
	"github.com/nats-io/nats.go"
)

// CloudEvents types of the bridge's events.
const (
	TypeLocation = "com.plaspy.location"
	TypeAlert    = "com.plaspy.alert"
	TypeDevice   = "com.plaspy.device"
	TypeResult   = "com.plaspy.result"
)

// Header names of an event: CloudEvents 1.0 in binary mode over NATS, all lower
// case, and the bridge's own.
const (
	HeaderID      = "ce-id"
	HeaderType    = "ce-type"
	HeaderSource  = "ce-source"
	HeaderSubject = "ce-subject"
	HeaderTime    = "ce-time"
	// HeaderPartition is the same for all messages of one device, for readers
	// that divide the stream and keep each device in order.
	HeaderPartition = "ce-partitionkey"
	// HeaderCausation is, on a result, the id of the inbound message.
	HeaderCausation = "ce-causationid"
	// HeaderRecorded is when the API answered the poll.
	HeaderRecorded = "ce-recordedtime"
	// HeaderSeverity is an alert's severity number as OpenTelemetry counts them: 17
	// for a critical alert that was raised, 13 for another one, 9 if it was cleared.
	HeaderSeverity = "ce-severitynumber"
	// HeaderEdges lists, on a location, the alert changes that follow it, as
	// "+" (raised) or "-" (cleared) and the alert's token, separated by spaces. After a
	// crash, the bridge publishes those of them that the stream does not hold.
	HeaderEdges = "plaspy-edges"
	// HeaderHistorySince is set on a location if the alert history could not be
	// read up to it: the time that the next request starts from.
	HeaderHistorySince = "plaspy-history-since"
	// HeaderNewest is set on a location if its time is in the future, or before or equal
	// to another published time of the device. It holds three times, each "-" if there is none:
	// the newest that was not in the future, and the earliest and the latest of those
	// after it.
	HeaderNewest = "plaspy-newest"
)

// TimeFormat is how the bridge writes instants: RFC 3339 in UTC with
// milliseconds.
const TimeFormat = "2006-01-02T15:04:05.000Z07:00"

// States of an alert.
const (
	Raised  = "raised"
	Cleared = "cleared"
)

// Sources of an alert that was not shown by a polled fix.
const (
	SourceHistory = "history" // it came from the alert history
	SourceBridge  = "bridge"  // the bridge raises and clears it itself
)

// Event is one message on its way to the events stream. Its author sets
// Subject and Expect; ID and Seq are set by [Publisher.Publish]. An event
// belongs to the publisher from then on until its chain is done.
type Event struct {
	// Subject is the subject that the event is published to.
	Subject string
	// Expect is the stream sequence of the subject's last message, 0 for none.
	// In a chain it counts for the first event of each subject only.
	Expect uint64
	// Seq is the stream sequence that the event got, 0 until it is stored.
	Seq uint64
	// ID is the event's ce-id and Nats-Msg-Id, empty until it is first sent.
	ID string

	kind    kind
	content uint64 // hash of the event without the time of its observation
	msg     *nats.Msg
	sent    time.Time
}

// Location is a last location that is new or changed.
type Location struct {
	DeviceID   string
	Token      string // Token(DeviceID)
	Name       string
	Source     string // the device's URL at the API
	FixTime    time.Time
	ObservedAt time.Time
	Backfilled bool
	Origin     string          // "inbound" if the bridge itself posted it, else empty
	Raw        json.RawMessage // as the API gave it; valid JSON in UTF-8; copied
	Hash       uint64          // of the fields that make a change
	Edges      string          // HeaderEdges' value, or empty
	Since      time.Time       // HeaderHistorySince, or zero
	Newest     string          // HeaderNewest's value, or empty
}

// Alert is an alert that was raised or cleared.
type Alert struct {
	DeviceID   string
	Token      string // Token(DeviceID)
	Name       string
	Source     string // the device's URL at the API
	Alert      string // the alert's name
	AlertToken string // Token(Alert)
	State      string // Raised or Cleared
	Critical   bool
	Texts      json.RawMessage // a JSON array, or nil for none
	DateTime   json.RawMessage // the API's spelling, a JSON string
	Latitude   json.RawMessage // the API's spelling, a JSON number
	Longitude  json.RawMessage
	FixTime    time.Time
	ObservedAt time.Time
	From       string // SourceHistory, SourceBridge, or empty: a polled fix
}

// Device is a device that was added, changed or removed.
type Device struct {
	DeviceID   string
	Token      string // Token(DeviceID)
	Source     string // the device's URL at the API
	Change     string // "added", "changed" or "removed"
	Raw        json.RawMessage
	Hash       uint64
	ObservedAt time.Time
}

// Changes of a device event.
const (
	Added   = "added"
	Changed = "changed"
	Removed = "removed"
)

// LocationEvent makes the event of a last location; expect is the sequence of the
// device's last one.
func (s Subjects) LocationEvent(l *Location, expect uint64) *Event {
	b := make([]byte, 0, len(l.Raw)+len(l.DeviceID)+len(l.Name)+128)
	b = appendString(append(b, `{"deviceId":`...), l.DeviceID)
	b = appendName(b, l.Name)
	b = appendTime(append(b, `,"observedAt":`...), l.ObservedAt)
	if l.Backfilled {
		b = append(b, `,"backfilled":true`...)
	}
	if l.Origin != "" {
		b = appendString(append(b, `,"origin":`...), l.Origin)
	}
	b = append(append(b, `,"location":`...), l.Raw...)
	e := newEvent(s.Location(l.Token), kindLocation, expect, l.Hash, b)
	e.describe(TypeLocation, l.Source, l.Token, l.FixTime)
	e.recorded(l.ObservedAt)
	if l.Edges != "" {
		e.keep(HeaderEdges, bounded(l.Edges))
	}
	if !l.Since.IsZero() {
		e.keep(HeaderHistorySince, l.Since.UTC().Format(time.RFC3339Nano))
	}
	if l.Newest != "" {
		e.keep(HeaderNewest, l.Newest)
	}
	return e
}

// keep sets a header that the bridge's state is read from. It is content: an event of
// another replica with the same location and another state is not the same event.
func (e *Event) keep(name, value string) {
	e.msg.Header[name] = []string{value}
	e.content = e.content*31 + xxhash.Sum64String(value)
}

// AlertEvent makes the event of an alert that was raised or cleared; expect is the sequence of the
// last message of that alert of that device.
func (s Subjects) AlertEvent(a *Alert, expect uint64) *Event {
	b := make([]byte, 0, 256+len(a.Texts)+len(a.Name)+len(a.DeviceID))
	b = appendString(append(b, `{"deviceId":`...), a.DeviceID)
	b = appendName(b, a.Name)
	b = appendString(append(b, `,"alert":`...), a.Alert)
	b = appendString(append(b, `,"state":`...), a.State)
	b = strconv.AppendBool(append(b, `,"critical":`...), a.Critical)
	if a.Texts != nil {
		b = append(append(b, `,"texts":`...), a.Texts...)
	}
	b = append(append(b, `,"dateTime":`...), a.DateTime...)
	b = append(append(b, `,"latitude":`...), a.Latitude...)
	b = append(append(b, `,"longitude":`...), a.Longitude...)
	if a.From != "" {
		b = append(append(append(b, `,"source":"`...), a.From...), '"')
	}
	content := xxhash.Sum64(b)
	b = appendTime(append(b, `,"observedAt":`...), a.ObservedAt)
	e := newEvent(s.Alert(a.Token, a.AlertToken), kindAlert, expect, content, b)
	e.describe(TypeAlert, a.Source, a.Token, a.FixTime)
	e.recorded(a.ObservedAt)
	e.msg.Header[HeaderSeverity] = severity(a)
	return e
}

// DeviceEvent makes the event of a device's addition, change or removal; expect
// is the sequence of the device's last one.
func (s Subjects) DeviceEvent(d *Device, expect uint64) *Event {
	b := make([]byte, 0, 128+len(d.Raw)+len(d.DeviceID))
	b = appendString(append(b, `{"deviceId":`...), d.DeviceID)
	b = appendString(append(b, `,"change":`...), d.Change)
	b = append(append(b, `,"device":`...), d.Raw...)
	b = appendTime(append(b, `,"observedAt":`...), d.ObservedAt)
	e := newEvent(s.Device(d.Token), kindDevice, expect, d.Hash+xxhash.Sum64String(d.Change), b)
	e.describe(TypeDevice, d.Source, d.Token, d.ObservedAt)
	return e
}

// SetHeader sets a header of an event before it is published. The event's id does not
// depend on it.
func (e *Event) SetHeader(name, value string) { e.msg.Header[name] = []string{value} }

func newEvent(subject string, k kind, expect, content uint64, body []byte) *Event {
	return &Event{
		Subject: subject, Expect: expect, kind: k, content: content,
		msg: &nats.Msg{Subject: subject, Data: append(body, '}')},
	}
}

// Header values that every event shares. They are never written to.
var (
	headerSpecVersion = []string{"1.0"}
	headerJSON        = []string{"application/json"}
	severityCritical  = []string{"17"}
	severityRaised    = []string{"13"}
	severityCleared   = []string{"9"}
	headerTypes       = map[string][]string{
		TypeLocation: {TypeLocation}, TypeAlert: {TypeAlert}, TypeDevice: {TypeDevice}, TypeResult: {TypeResult},
	}
)

// MaxEdges bounds HeaderEdges, in bytes, because a stream refuses more than 64 KiB of
// headers. The remaining changes are published too, unless the process ends just after
// the location.
const MaxEdges = 32 << 10

// bounded cuts HeaderEdges after the last change that fits.
func bounded(edges string) string {
	if len(edges) <= MaxEdges {
		return edges
	}
	return edges[:strings.LastIndexByte(edges[:MaxEdges+1], ' ')]
}

func severity(a *Alert) []string {
	switch {
	case a.State == Cleared:
		return severityCleared
	case a.Critical:
		return severityCritical
	}
	return severityRaised
}

// recorded sets when the API answered the poll.
func (e *Event) recorded(at time.Time) {
	e.msg.Header[HeaderRecorded] = []string{at.UTC().Format(TimeFormat)}
}

// deviceSource returns the ce-source of a device: its URL at the API with the
// token in place of the id. It never contains a '%', which the CloudEvents binding
// for NATS would have escaped once more.
func deviceSource(url, token string) string {
	if at := strings.LastIndexByte(url, '/'); at >= 0 {
		url = url[:at+1] + token
	}
	if strings.Contains(url, "%") { // from the root of the API
		url = strings.ReplaceAll(url, "%", "=")
	}
	return url
}

// CloudEvent returns the headers of a CloudEvents 1.0 event in binary mode with a
// JSON body. token is the device's, and source its URL at the API, which ends with
// the escaped id. All must be ASCII.
func CloudEvent(typ, id, source, token string, at time.Time) nats.Header {
	// One array holds all values. A slice for each header would cost one more
	// allocation per header for every publish.
	layout := time.RFC3339Nano
	if typ == TypeDevice || typ == TypeResult {
		layout = TimeFormat // the body has the same instant
	}
	v := [...]string{id, deviceSource(source, token), token, at.UTC().Format(layout)}
	return nats.Header{
		"ce-specversion":     headerSpecVersion,
		"content-type":       headerJSON,
		"ce-datacontenttype": headerJSON,
		HeaderType:           headerTypes[typ],
		HeaderID:             v[0:1:1],
		nats.MsgIdHdr:        v[0:1:1],
		HeaderSource:         v[1:2:2],
		HeaderSubject:        v[2:3:3],
		HeaderPartition:      v[2:3:3],
		HeaderTime:           v[3:4:4],
	}
}

func (e *Event) describe(typ, source, token string, at time.Time) {
	e.msg.Header = CloudEvent(typ, "", source, token, at)
}

// stamp fixes the event's fence, and with it its id, when it is first sent.
func (e *Event) stamp(expect uint64) {
	e.Expect = expect
	e.ID = eventID(e.Subject, expect, e.content)
	e.msg.Header[HeaderID] = []string{e.ID}
	e.msg.Header[nats.MsgIdHdr] = e.msg.Header[HeaderID]
	e.msg.Header[nats.ExpectedLastSubjSeqHdr] = []string{strconv.FormatUint(expect, 10)}
}

// eventID returns the same id for every retry of a publication, even by another
// process, and a different id if the same content is published again later.
func eventID(subject string, expect, content uint64) string {
	var seq [8]byte
	binary.BigEndian.PutUint64(seq[:], expect)
	var h xxhash.Digest
	h.Reset()
	_, _ = h.WriteString(subject)
	_, _ = h.Write(seq[:])
	var id [32]byte
	hex64(id[:16], h.Sum64())
	hex64(id[16:], content)
	return string(id[:])
}

func hex64(dst []byte, v uint64) {
	const digits = "0123456789abcdef"
	for i := 15; i >= 0; i-- {
		dst[i] = digits[v&15]
		v >>= 4
	}
}

func appendName(b []byte, name string) []byte {
	if name == "" {
		return b
	}
	return appendString(append(b, `,"name":`...), name)
}

// appendString writes a JSON string. Plain ASCII, which nearly all ids are, is
// copied; the standard library escapes other text.
func appendString(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			quoted, err := json.Marshal(s)
			if err != nil { // cannot happen: any string marshals
				quoted = []byte(`""`)
			}
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

func appendTime(b []byte, t time.Time) []byte {
	b = append(b, '"')
	b = t.UTC().AppendFormat(b, TimeFormat)
	return append(b, '"')
}

// HeaderGroups lists the groups of the event's device, encoded by [Encode] and
// separated by commas. A device without groups has no such header.
const HeaderGroups = "plaspy-groups"

// SetGroups adds the ids of the device's groups to an event that was not published
// yet, as "groups" in the body and in [HeaderGroups]. The event's id does not
// depend on them.
func (e *Event) SetGroups(ids []string) {
	b := make([]byte, 0, len(e.msg.Data)+16+32*len(ids))
	b = append(b, `{"groups":[`...)
	var header strings.Builder
	for i, id := range ids {
		if i > 0 {
			b = append(b, ',')
			header.WriteByte(',')
		}
		b = appendString(b, id)
		header.WriteString(Encode(id))
	}
	b = append(b, `],`...)
	e.msg.Data = append(b, e.msg.Data[1:]...) // every body has members
	if len(ids) > 0 {
		e.SetHeader(HeaderGroups, header.String())
	}
}
