package schema

import (
	"strings"

	"plaspy-bridge/publisher"
)

// AsyncAPI parameters for subject tokens.
const (
	anyDevice = "{device}"
	anyAlert  = "{alert}"
	anyGroup  = "{group}"
)

// replies is the channel of every answer: the requester's inbox.
const replies = "reply"

// Content types of bodies.
const (
	jsonType = "application/json"
	anyType  = "application/octet-stream"
)

func ref(path string) reference { return reference{"#/" + path} }

// body returns a message: a title that code generators use as a name, a sentence,
// a schema for its body and one for its headers. An empty headers allows any.
func body(title, sentence, payload, headers string) message {
	m := message{Title: title, Description: sentence, ContentType: jsonType, Payload: reference{componentPrefix + payload}}
	if headers != "" {
		m.Headers = &reference{componentPrefix + headers}
	}
	return m
}

// messages returns all messages by name.
func messages() map[string]message {
	dead := body("DeadLetter", "An inbound message that is not retried.", "anyBody", "deadLetterHeaders")
	dead.ContentType = anyType
	question := body("Question", "A query without a body.", "nothing", "questionHeaders")
	question.ContentType = anyType
	refusal := body("QueryError", "An answer that is an error.", "nothing", "errorHeaders")
	refusal.ContentType = anyType
	all := map[string]message{
		"location":        body("LocationEvent", "A new or changed last location.", "locationEvent", "locationHeaders"),
		"newest":          body("NewestLocation", "A device's newest location, in the bucket.", "locationEvent", "newestHeaders"),
		"alert":           body("AlertEvent", "An alert was raised or cleared.", "alertEvent", "alertHeaders"),
		"device":          body("DeviceEvent", "A device was added, changed or removed.", "deviceEvent", "deviceHeaders"),
		"inboundLocation": body("InboundLocation", "A location to post, or a batch of them.", "inboundLocation", "inboundHeaders"),
		"inboundAlert":    body("InboundAlert", "An alert to post.", "inboundAlert", "inboundHeaders"),
		"result":          body("Result", "The result of an inbound message.", "result", "resultHeaders"),
		"deadLetter":      dead,
		"question":        question,
		"range":           body("Range", "A query for a time range.", "range", "questionHeaders"),
		"alertRange":      body("AlertRange", "A query for a time range, optionally for one alert.", "alertRange", "questionHeaders"),
		"devicesAnswer":   body("DevicesAnswer", "The device list.", "devicesAnswer", "answerHeaders"),
		"deviceAnswer":    body("DeviceAnswer", "A device.", "deviceAnswer", "answerHeaders"),
		"lastAnswer":      body("LastAnswer", "A last location.", "lastAnswer", "answerHeaders"),
		"locationsAnswer": body("LocationsAnswer", "Locations of a time range.", "locationsAnswer", "answerHeaders"),
		"alertsAnswer":    body("AlertsAnswer", "Alerts of a time range.", "alertsAnswer", "answerHeaders"),
		"whyAnswer":       body("WhyAnswer", "The last decisions on a device.", "why", "answerHeaders"),
		"pollAnswer":      body("PollAnswer", "The result of a poll that was asked for.", "pollAnswer", "answerHeaders"),
		"control":         body("ControlEntry", "Settings of a device or a group, in the bucket.", "controlEntry", ""),
		"fleetControl":    body("FleetControlEntry", "Settings of the fleet, in the bucket.", "fleetControlEntry", ""),
		"refusal":         refusal,
	}
	correlated := map[string]string{
		"location": "event", "newest": "event", "alert": "event", "device": "event",
		"inboundLocation": "inbound", "inboundAlert": "inbound", "result": "result", "deadLetter": "deadLetter",
	}
	for name, m := range all {
		m.Name = name
		if id := correlated[name]; id != "" {
			to := ref("components/correlationIds/" + id)
			m.Correlation = &to
		}
		all[name] = m
	}
	return all
}

// correlations returns the places of the ids by which messages belong together.
func correlations() map[string]address {
	return map[string]address{
		"event":      {"$message.header#/ce-id", "Copies of one event have the same id."},
		"inbound":    {"$message.header#/Nats-Msg-Id", "The producer's id of the message. The result carries it."},
		"result":     {"$message.payload#/id", "The inbound message's id."},
		"deadLetter": {"$message.header#/Plaspy-Original-Nats-Msg-Id", "The inbound message's id."},
	}
}

// security returns the ways to authenticate to a NATS server.
func security() map[string]securityScheme {
	return map[string]securityScheme{
		"userPassword": {Type: "userPassword", Description: "User name and password."},
		"token":        {Type: "apiKey", In: "password", Description: "A token of the server."},
		"nkey":         {Type: "asymmetricEncryption", Description: "An nkey, or a credentials file with a JWT and an nkey."},
		"certificate":  {Type: "X509", Description: "A client certificate, if the server verifies them."},
	}
}

// addEvents describes the events and the bucket of newest locations.
func (d *document) addEvents(s publisher.Subjects) {
	d.add("location", s.Location(anyDevice), s.Events(), "location", "New and changed last locations")
	d.add("alert", s.Alert(anyDevice, anyAlert), s.Events(), "alert", "Alerts raised and cleared")
	d.add("device", s.Device(anyDevice), s.Events(), "device", "Devices added, changed and removed")
	d.send("publishLocation", "location", "A poll or back-fill found a fix that differs from the previous one.")
	d.send("publishAlert", "alert", "An alert appeared in or disappeared from a fix, or is in the alert history.")
	d.send("publishDevice", "device", "The device list changed.")

	bucket := s.LastBucket()
	d.add("last", s.LastKey(anyDevice), publisher.BucketStream(bucket), "newest", "Each device's newest location event, as a key-value bucket")
	last := d.Channels["last"]
	last.Bucket = bucket
	last.Description = "The key is the device's token. The server fills the bucket from the events stream."
	d.Channels["last"] = last
	d.send("keepLast", "last", "A device's newest location event.")
}

// addInbound describes inbound messages, their results and dead letters.
func (d *document) addInbound(s publisher.Subjects) {
	for _, kind := range []struct{ name, in, label string }{
		{"Location", s.InLocation(anyDevice), "location"}, {"Alert", s.InAlert(anyDevice), "alert"},
	} {
		d.add("in"+kind.name, kind.in, s.Inbound(), "inbound"+kind.name, "Inbound "+kind.label+", to post to the API")
		d.add("result"+kind.name, s.Result(kind.label, anyDevice), s.Results(), "result", "Result of an inbound "+kind.label)
		d.add("dead"+kind.name, s.DeadLetter(kind.label, anyDevice), s.DeadLetters(), "deadLetter", "Dead letter of an inbound "+kind.label)
		d.receive("post"+kind.name, "in"+kind.name, "Posts it to the API, in stream order for each device.", &reply{
			Address: &address{"$message.header#/Reply-To", "If the header is set. The result also goes to its own subject."},
			Channel: ref("channels/" + replies), Messages: d.answers("result"),
		})
		d.send("report"+kind.name, "result"+kind.name, "The API took the message, or the message became a dead letter.")
		d.send("reject"+kind.name, "dead"+kind.name, "The API rejected the message, or the message is invalid or too old.")
	}
	d.add("deadUnknown", s.DeadLetterUnknown(), s.DeadLetters(), "deadLetter", "Dead letter of a message with an unknown subject")
	d.send("rejectUnknown", "deadUnknown", "The bridge does not post messages of this subject.")
}

// addQueries describes the query service.
func (d *document) addQueries(s publisher.Subjects) {
	for _, q := range []struct{ name, operation, question, answer, title string }{
		{"devices", "askDevices", "question", "devicesAnswer", "The device list, as the API returns it"},
		{"device", "askDevice", "question", "deviceAnswer", "One device, as the API returns it"},
		{"last", "askLast", "question", "lastAnswer", "A last location, as the API returns it"},
		{"why", "askWhy", "question", "whyAnswer", "The last decisions on a device, from memory"},
		{"poll", "askPoll", "question", "pollAnswer", "Polls a device before all others"},
		{"locations", "askLocations", "range", "locationsAnswer", "The locations of a time range, as the API returns them"},
		{"alerts", "askAlerts", "alertRange", "alertsAnswer", "The alerts of a time range, as the API returns them"},
	} {
		subject := s.API() + "." + q.name
		if q.name != "devices" {
			subject += "." + anyDevice
		}
		d.add(q.operation, subject, "", q.question, q.title)
		d.receive(q.operation, q.operation, q.title+".", &reply{
			Channel: ref("channels/" + replies), Messages: d.answers(q.answer, "refusal"),
		})
	}
}

// addControl describes the settings that operators change at run time.
func (d *document) addControl(s publisher.Subjects) {
	bucket := s.ControlBucket()
	for _, c := range []struct{ name, key, message, title string }{
		{"controlDevice", "device." + anyDevice, "control", "Live control of a device"},
		{"controlGroup", "group." + anyGroup, "control", "Live control of the devices of a group"},
		{"controlFleet", "fleet", "fleetControl", "Live control of the fleet"},
	} {
		d.add(c.name, publisher.BucketKey(bucket, c.key), publisher.BucketStream(bucket), c.message, c.title)
		channel := d.Channels[c.name]
		channel.Bucket = bucket
		channel.Description = "A key-value bucket. Deleting the key ends its settings."
		d.Channels[c.name] = channel
		d.receive("apply"+strings.ToUpper(c.name[:1])+c.name[1:], c.name, "Applies the settings within a second, in every replica.", nil)
	}
}

// add adds a channel. Its parameters are those in the subject.
func (d *document) add(name, subject, stream, message, title string) {
	c := channel{
		Address: &subject, Title: title, Stream: stream,
		Messages: map[string]reference{message: ref("components/messages/" + message)},
	}
	for _, p := range []string{"device", "alert", "group"} {
		if strings.Contains(subject, "{"+p+"}") {
			if c.Parameters == nil {
				c.Parameters = map[string]reference{}
			}
			c.Parameters[p] = ref("components/parameters/" + p)
		}
	}
	d.Channels[name] = c
}

func (d *document) send(name, channel, summary string) {
	d.Operations[name] = d.operation("send", channel, summary)
}

func (d *document) receive(name, channel, summary string, r *reply) {
	o := d.operation("receive", channel, summary)
	o.Reply = r
	d.Operations[name] = o
}

func (d *document) operation(action, channel, summary string) operation {
	o := operation{Action: action, Channel: ref("channels/" + channel), Summary: summary}
	for message := range d.Channels[channel].Messages {
		o.Messages = append(o.Messages, ref("channels/"+channel+"/messages/"+message))
	}
	return o
}

// answers adds messages to the channel of answers and returns references to them.
func (d *document) answers(names ...string) []reference {
	c, ok := d.Channels[replies]
	if !ok {
		c = channel{Title: "The reply subject of the request", Messages: map[string]reference{}}
	}
	var list []reference
	for _, name := range names {
		c.Messages[name] = ref("components/messages/" + name)
		list = append(list, ref("channels/"+replies+"/messages/"+name))
	}
	d.Channels[replies] = c
	return list
}
