// Package sim simulates the Plaspy REST API: a fleet behind the API's wire
// format, for the demo, for tests and for benchmarks.
//
// A Server is an http.Handler. It serves real HTTP through Listen, through
// httptest (HTTP/2 as well), and in process through Transport, which also works
// inside testing/synctest bubbles. It needs no goroutine and no clock of its own:
// the state of a device is computed from the time of the request.
//
// # Parts
//
// The package has the server: the order in which a request is checked, the
// answers, the counters and the control API. Its parts are packages:
//
//   - account: the devices, their locations, and the posts
//   - fleet: the vehicles that report
//   - fault: faults, and how they act on an answer
//   - token: the tokens of the account
//   - route: the endpoint and the device of a path
//   - inprocess: HTTP without a network
//
// # Answers
//
// The endpoints are POST /api/Auth/Token, GET /api/devices, /api/devices/{id},
// /api/devices/{id}/lastLocation and /api/groups, POST
// /api/devices/{id}/locations and .../alerts, as the API's documentation has
// them, with its statuses: 400 for an invalid request, 401 without a valid
// token, 404, 405, 413, 415 for a body that is not JSON, 429. A device id is any
// text that is not empty; in a path it is percent-encoded once, slashes too.
//
// If the documentation allows two readings, so does the simulator. A body with a
// location stores it, one without asks for a range of times. An alert post for
// an instant with a name raises that alert, any other asks.
// A stored location shows in lastLocation while it is newer than the vehicle's own.
//
// A request passes, in this order: the counters, the rate limit, the faults,
// the check of the method, the token, the device's daily quota, the endpoint.
//
// # Faults and facts
//
// Server.Fault switches on faults for endpoints, devices and times. Server.Shown,
// Changes, Posts and Counts return the facts: the locations shown and their
// times, the accepted posts in order, and the rate of requests. Options.Record
// bounds them. An answer counts as shown when it is handed to the connection; the
// client may have left by then.
//
// SetLocation and its like put a device under a test's control.
//
// # The control API
//
// With Options.Control a harness in another process has the same means, under
// /_sim/ and without a token. Bodies and answers are JSON, errors are
// {"error": text} with status 400; {id} stands in the query, encoded.
//
//	GET    /_sim/counts                  Counts
//	GET    /_sim/devices                 the ids, an array
//	GET    /_sim/shown?device={id}       []account.Shown
//	GET    /_sim/changes?device={id}     []account.Shown, as Server.Changes
//	GET    /_sim/posts?device={id}       []account.Post
//	POST   /_sim/fault                   fault.Rule, e.g. {"kind": "status", "status": 503, "endpoint": "lastLocation",
//	                                     "probability": 0.3, "retryAfter": "2s"}; answers {"id": n}
//	DELETE /_sim/fault?id={n}            switches that fault off; without id: all
//	PUT    /_sim/account                 {"apiKey": text}: a new key, which revokes the tokens;
//	                                     {"tokenLife": "3s"}: of tokens issued from now on
//	PUT    /_sim/fleet                   {"profile": "every-second"}: a new life of every device, see fleet.ParseProfile
//	POST   /_sim/revoke                  revokes the tokens
//	PUT    /_sim/device?device={id}      adds a device; a body of account.DeviceInfo changes its entry
//	DELETE /_sim/device?device={id}      removes it
//	PUT    /_sim/location?device={id}    shows the body as lastLocation, byte for byte; empty means nothing
//	DELETE /_sim/location?device={id}    shows the vehicle's own fixes again
//
// Remote is a client for it. The control API belongs on loopback only: it has no
// authentication.
package sim
