package echo

import "plaspy-bridge/publisher"

// Needs lists the permissions for following the results.
func Needs(s publisher.Subjects) []publisher.Permission {
	return publisher.Reading(s.Results(), "", "a location that comes back through the API is published as the device's own")
}
