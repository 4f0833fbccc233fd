package sim

import (
	"net/http"
	"net/url"
	"strings"
)

// endpoint is one of the API's, by the names that Fault and Counts use.
type endpoint int

const (
	unknown endpoint = iota
	token
	devices
	oneDevice
	groups
	lastLocation
	locations
	alerts
	endpoints // how many there are
)

var endpointNames = [endpoints]string{"unknown", "token", "devices", "device", "groups", "lastLocation", "locations", "alerts"}

func (e endpoint) String() string { return endpointNames[e] }

// method is the only one that the endpoint takes.
func (e endpoint) method() string {
	switch e {
	case token, locations, alerts:
		return http.MethodPost
	default:
		return http.MethodGet
	}
}

// route returns the endpoint and the device of a path. It works on the path as
// it was sent: http.ServeMux would clean away ids such as "..", and take those
// with a slash apart.
func route(u *url.URL) (e endpoint, id string) {
	// RawPath is set only if the path is not the default encoding of Path;
	// otherwise no part of Path holds a slash that was sent as %2F.
	path, encoded := u.RawPath, true
	if path == "" {
		path, encoded = u.Path, false
	}
	path, ok := strings.CutPrefix(path, "/api/")
	if !ok {
		return unknown, ""
	}
	switch path {
	case "Auth/Token":
		return token, ""
	case "devices":
		return devices, ""
	case "groups":
		return groups, ""
	}
	path, ok = strings.CutPrefix(path, "devices/")
	if !ok {
		return unknown, ""
	}
	id, action, deeper := strings.Cut(path, "/")
	switch {
	case !deeper:
		e = oneDevice
	case action == "lastLocation":
		e = lastLocation
	case action == "locations":
		e = locations
	case action == "alerts":
		e = alerts
	}
	if encoded {
		var err error
		if id, err = url.PathUnescape(id); err != nil {
			return unknown, ""
		}
	}
	if e == unknown || id == "" {
		return unknown, ""
	}
	return e, id
}
