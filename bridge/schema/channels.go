package schema

import (
	"strings"

	"plaspy-bridge/publisher"
)

// Tokens of a subject that stand for any, as AsyncAPI writes them.
const (
	anyDevice = "{device}"
	anyAlert  = "{alert}"
)

// replies is the channel of every answer: the asker's inbox.
const replies = "reply"

// Content types of bodies.
const (
	jsonType = "application/json"
	anyType  = "application/octet-stream"
)

func ref(path string) reference { return reference{"#/" + path} }

// body makes a message of a title, a schema for its body and one for its
// headers, or "" for any.
func body(title, payload, headers string) message {
	m := message{Title: title, ContentType: jsonType, Payload: reference{componentPrefix + payload}}
	if headers != "" {
		m.Headers = &reference{componentPrefix + headers}
	}
	return m
}

// messages are all there are, by name.
func messages() map[string]message {
	letter := body("An inbound message that will not be tried again", "anyBody", "deadLetterHeaders")
	letter.ContentType = anyType
	question := body("A question without a body", "nothing", "questionHeaders")
	question.ContentType = anyType
	refusal := body("An answer that is an error", "nothing", "errorHeaders")
	refusal.ContentType = anyType
	all := map[string]message{
		"location":        body("A new or changed last location", "locationEvent", "locationHeaders"),
		"newest":          body("A device's newest location, as its bucket has it", "locationEvent", "newestHeaders"),
		"alert":           body("An alert was raised or cleared", "alertEvent", "alertHeaders"),
		"device":          body("A device was added, changed or removed", "deviceEvent", "deviceHeaders"),
		"inboundLocation": body("A location to post", "inboundLocation", "inboundHeaders"),
		"inboundAlert":    body("An alert to post", "inboundAlert", "inboundHeaders"),
		"result":          body("What became of an inbound message", "result", "resultHeaders"),
		"deadLetter":      letter,
		"question":        question,
		"range":           body("A range of time to ask for", "range", "questionHeaders"),
		"alertRange":      body("A range of time to ask for, and perhaps an alert", "alertRange", "questionHeaders"),
		"devicesAnswer":   body("The device list", "devicesAnswer", "answerHeaders"),
		"deviceAnswer":    body("A device", "deviceAnswer", "answerHeaders"),
		"lastAnswer":      body("A last location", "lastAnswer", "answerHeaders"),
		"locationsAnswer": body("Locations of a range", "locationsAnswer", "answerHeaders"),
		"alertsAnswer":    body("Alerts of a range", "alertsAnswer", "answerHeaders"),
		"whyAnswer":       body("The last decisions on a device", "why", "answerHeaders"),
		"refusal":         refusal,
	}
	for name, m := range all {
		m.Name = name
		all[name] = m
	}
	return all
}

// addEvents describes what the bridge publishes of its own accord.
func (d *document) addEvents(s publisher.Subjects) {
	d.add("location", s.Location(anyDevice), s.Events(), "location", "New and changed last locations")
	d.add("alert", s.Alert(anyDevice, anyAlert), s.Events(), "alert", "Alerts raised and cleared")
	d.add("device", s.Device(anyDevice), s.Events(), "device", "Devices added, changed and removed")
	d.send("publishLocation", "location", "A poll, or back-fill, found a fix that differs from the one before.")
	d.send("publishAlert", "alert", "A name appeared among a fix's alerts, or went, or the alert history has it.")
	d.send("publishDevice", "device", "The device list changed.")

	bucket := s.LastBucket()
	d.add("last", s.LastKey(anyDevice), publisher.BucketStream(bucket), "newest", "Each device's newest location event, as a key-value bucket")
	last := d.Channels["last"]
	last.Bucket = bucket
	last.Description = "The key is the device's token. The server keeps the bucket up to date out of the events' stream."
	d.Channels["last"] = last
	d.send("keepLast", "last", "A device's newest location event.")
}

// addInbound describes the consumer side.
func (d *document) addInbound(s publisher.Subjects) {
	for _, kind := range []struct{ name, in, label string }{
		{"Location", s.InLocation(anyDevice), "location"}, {"Alert", s.InAlert(anyDevice), "alert"},
	} {
		d.add("in"+kind.name, kind.in, s.Inbound(), "inbound"+kind.name, "What is to be posted: a "+kind.label)
		d.add("result"+kind.name, s.Result(kind.label, anyDevice), s.Results(), "result", "What became of it: a "+kind.label)
		d.add("dead"+kind.name, s.DeadLetter(kind.label, anyDevice), s.DeadLetters(), "deadLetter", "What will not be tried again: a "+kind.label)
		d.receive("post"+kind.name, "in"+kind.name, "Posts it to the API, each device's in the order of the stream.", &reply{
			Address: &address{"$message.header#/Reply-To", "Where the header is set; the result goes to its own subject as well."},
			Channel: ref("channels/" + replies), Messages: d.answers("result"),
		})
		d.send("report"+kind.name, "result"+kind.name, "The API took the message, or the message became a dead letter.")
		d.send("bury"+kind.name, "dead"+kind.name, "The API refused the message for good, or it is invalid, or too old.")
	}
	d.add("deadUnknown", s.DeadLetterUnknown(), s.DeadLetters(), "deadLetter", "What came on a subject that nothing is posted from")
	d.send("buryUnknown", "deadUnknown", "The message's subject is none that the bridge posts from.")
}

// addQueries describes the query service.
func (d *document) addQueries(s publisher.Subjects) {
	for _, q := range []struct{ name, operation, question, answer, title string }{
		{"devices", "askDevices", "question", "devicesAnswer", "The device list, as the API answers it"},
		{"device", "askDevice", "question", "deviceAnswer", "One device, as the API answers it"},
		{"last", "askLast", "question", "lastAnswer", "A last location, as the API answers it"},
		{"why", "askWhy", "question", "whyAnswer", "The last decisions on a device, from memory"},
		{"locations", "askLocations", "range", "locationsAnswer", "The locations of a range, as the API answers them"},
		{"alerts", "askAlerts", "alertRange", "alertsAnswer", "The alerts of a range, as the API answers them"},
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

// add describes a channel. It has the parameters that its subject has.
func (d *document) add(name, subject, stream, message, title string) {
	c := channel{
		Address: &subject, Title: title, Stream: stream,
		Messages: map[string]reference{message: ref("components/messages/" + message)},
	}
	for _, p := range []string{"device", "alert"} {
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

// answers adds messages to the channel of answers and refers to them there.
func (d *document) answers(names ...string) []reference {
	c, ok := d.Channels[replies]
	if !ok {
		c = channel{Title: "Where the asker wants the answer", Messages: map[string]reference{}}
	}
	var list []reference
	for _, name := range names {
		c.Messages[name] = ref("components/messages/" + name)
		list = append(list, ref("channels/"+replies+"/messages/"+name))
	}
	d.Channels[replies] = c
	return list
}
