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

// Address is the meaning of a message's subject: its kind and its device.
type Address struct {
	Kind   Kind
	Token  string // the device's encoded id; empty if Kind is Unknown
	Device string // its id
	Reason string // if Kind is Unknown: why
}

// AddressOf reads a subject of the inbound stream. A subject that names no device,
// or no kind of message, has kind [Unknown].
func AddressOf(subjects publisher.Subjects, subject string) Address {
	rest, ok := strings.CutPrefix(subject, strings.TrimSuffix(subjects.InboundAll(), ">"))
	kind, token, nested := strings.Cut(rest, ".")
	posted := kind == string(Location) || kind == string(Alert)
	if !ok || !nested || strings.Contains(token, ".") || !posted {
		return unknown("subject is none of " + wanted(subjects))
	}
	id, err := publisher.Decode(token)
	if err == nil {
		_, err = publisher.Token(id)
	}
	if err != nil {
		if strings.Contains(token, "//") {
			// A server writes the dot of an MQTT topic like this.
			return unknown("subject does not name a device: a dot in the id should be written as =2E")
		}
		return unknown("subject does not name a device: " + err.Error())
	}
	return Address{Kind: Kind(kind), Token: token, Device: id}
}

func unknown(reason string) Address { return Address{Kind: Unknown, Reason: reason} }

func wanted(s publisher.Subjects) string {
	return s.InLocation("<device>") + " and " + s.InAlert("<device>")
}
