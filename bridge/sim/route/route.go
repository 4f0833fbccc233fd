// Package route finds the endpoint and the device that a request's path names.
//
// It works on the path as the client sent it. It knows nothing of tokens,
// devices or answers.
package route

import (
	"net/http"
	"net/url"
	"strings"
)

// Endpoint is an endpoint of the API. Unknown is any other path.
type Endpoint int

// The endpoints of the API.
const (
	Unknown Endpoint = iota
	Token
	Devices
	Device
	Groups
	LastLocation
	Locations
	Alerts
)

// Count is the number of endpoints, Unknown included.
const Count = len(names)

var names = [...]string{"unknown", "token", "devices", "device", "groups", "lastLocation", "locations", "alerts"}

// String returns the name that faults and counters use.
func (e Endpoint) String() string { return names[e] }

// Method returns the only HTTP method that the endpoint accepts.
func (e Endpoint) Method() string {
	if e == Token || e.Stores() {
		return http.MethodPost
	}
	return http.MethodGet
}

// Stores reports whether a request can store a location or an alert.
func (e Endpoint) Stores() bool { return e == Locations || e == Alerts }

// Parse returns the endpoint of a URL and the decoded id of its device, if it
// names one. http.ServeMux would clean away ids such as ".." and split those
// with a slash.
func Parse(u *url.URL) (e Endpoint, id string) {
	// RawPath is set only if the path is not the default encoding of Path;
	// otherwise no part of Path holds a slash that was sent as %2F.
	path, encoded := u.RawPath, true
	if path == "" {
		path, encoded = u.Path, false
	}
	path, ok := strings.CutPrefix(path, "/api/")
	if !ok {
		return Unknown, ""
	}
	switch path {
	case "Auth/Token":
		return Token, ""
	case "devices":
		return Devices, ""
	case "groups":
		return Groups, ""
	}
	path, ok = strings.CutPrefix(path, "devices/")
	if !ok {
		return Unknown, ""
	}
	id, action, deeper := strings.Cut(path, "/")
	switch {
	case !deeper:
		e = Device
	case action == "lastLocation":
		e = LastLocation
	case action == "locations":
		e = Locations
	case action == "alerts":
		e = Alerts
	}
	if encoded {
		var err error
		if id, err = url.PathUnescape(id); err != nil {
			return Unknown, ""
		}
	}
	if e == Unknown || id == "" {
		return Unknown, ""
	}
	return e, id
}
