package message

import (
	"strings"

	"plaspy-bridge/publisher"
)

// Kind is the kind of an inbound message: the endpoint that it is posted to.
type Kind string

// The kinds of inbound messages.
const (
	Location Kind = "location"
	Alert    Kind = "alert"
	// Unknown is a message on a subject that the bridge posts nothing from.
	Unknown Kind = "unknown"
)

// Address is the meaning of a message's subject: its lane, its kind and its
// device.
type Address struct {
	Lane   string // key of the lane
	Filter string // matches the subjects of the lane's messages, and no other's
	Kind   Kind
	Token  string // the device's encoded id; empty if Kind is Unknown
	Device string // its id
	Reason string // if Kind is Unknown: why
}

// AddressOf reads a subject of the inbound stream. Every message has a lane,
// also one that can only be dead-lettered: prefix.in.x.y shares that of
// device y, because a filter by subject matches both.
func AddressOf(subjects publisher.Subjects, subject string) Address {
	rest, ok := strings.CutPrefix(subject, strings.TrimSuffix(subjects.InboundAll(), ">"))
	kind, token, nested := strings.Cut(rest, ".")
	if !ok || !nested || strings.Contains(token, ".") {
		return Address{Lane: subject, Filter: subject, Kind: Unknown, Reason: "subject is none of " + wanted(subjects)}
	}
	a := Address{Lane: token, Filter: subjects.InboundOf(token), Kind: Unknown}
	if kind != string(Location) && kind != string(Alert) {
		a.Reason = "subject is none of " + wanted(subjects)
		return a
	}
	id, err := publisher.Decode(token)
	if err == nil {
		_, err = publisher.Token(id)
	}
	if err != nil {
		a.Reason = "subject does not name a device: " + err.Error()
		if strings.Contains(token, "//") {
			// A server writes the dot of an MQTT topic so.
			a.Reason = "subject does not name a device: a dot in the id should be written as =2E"
		}
		return a
	}
	a.Kind, a.Token, a.Device = Kind(kind), token, id
	return a
}

func wanted(s publisher.Subjects) string {
	return s.InLocation("<device>") + " and " + s.InAlert("<device>")
}
