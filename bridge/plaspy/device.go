package plaspy

import (
	"time"

	"plaspy-bridge/auth"
)

// ParseTime reads an ISO 8601 date and time in any spelling that APIs are known to use; a missing offset means
// UTC.
func ParseTime(s string) (time.Time, error) {
	t, _, err := auth.ParseTime(s)
	return t, err
}

// DeviceURL returns the address of a device at the API, in ASCII.
func (c *Client) DeviceURL(id string) string {
	u := c.prefix
	u.Path += "/api/devices/" + id
	u.RawPath += "/api/devices/" + escapeID(id)
	return u.String()
}
