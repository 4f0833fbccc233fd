// Package feed serves the positions and events of the fleet over HTTP, for maps
// and programs that do not speak NATS.
//
// GET /devices.geojson is an RFC 7946 FeatureCollection with the newest position
// of each device that the account has, from the events stream, so that every
// replica answers alike. Its parameters are bbox=west,south,east,north (west
// greater than east crosses the antimeridian), group and alert; group and alert
// may be repeated, and one of the values must match.
//
// GET /events is a stream of server-sent events: one for each message of the
// events stream, with its sequence as id, its kind (location, alert or device) as
// event, and the message as data. A client that sends Last-Event-ID gets
// everything after that sequence that the stream still holds; one that does not
// gets the messages from now on. Parameters are kind and device, which may be
// repeated. The event "reset" says that the sequence is not of this stream: the
// positions should be read again.
package feed
