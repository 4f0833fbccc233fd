package sim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"plaspy-bridge/bridge/sim/account"
	"plaspy-bridge/bridge/sim/fault"
	"plaspy-bridge/bridge/sim/fleet"
)

// controlPrefix is the path of the control API. The Plaspy API does not use it.
const controlPrefix = "/_sim/"

// control is the control API of a server. doc.go lists the requests.
type control struct{ server *Server }

// ServeHTTP answers a request of the control API.
func (c *control) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	result, err := c.do(r)
	w.Header()["Content-Type"] = jsonType
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		result = map[string]string{"error": err.Error()}
	}
	_ = json.NewEncoder(w).Encode(result) // fails only if the client has left
}

// do carries out a request and returns its result.
func (c *control) do(r *http.Request) (any, error) {
	s := c.server
	q := r.URL.Query()
	device := q.Get("device")
	switch r.Method + " " + r.URL.Path[len(controlPrefix):] {
	case "GET counts":
		return s.Counts(), nil
	case "GET devices":
		return s.IDs(), nil
	case "GET shown":
		return nonNil(s.Shown(device)), nil
	case "GET changes":
		return nonNil(s.Changes(device)), nil
	case "GET posts":
		return nonNil(s.Posts(device)), nil
	case "POST revoke":
		s.RevokeTokens()
		return done, nil
	case "DELETE fault":
		return c.removeFault(q.Get("id"))
	case "DELETE device":
		s.RemoveDevice(device)
		return done, nil
	case "DELETE location":
		s.ReleaseLocation(device)
		return done, nil
	}
	body, ok := readBody(r)
	if !ok {
		return nil, errors.New("request body too large")
	}
	switch r.Method + " " + r.URL.Path[len(controlPrefix):] {
	case "POST fault":
		var f fault.Rule
		if err := json.Unmarshal(body, &f); err != nil {
			return nil, err
		}
		return map[string]uint64{"id": s.faults.Add(f)}, nil
	case "PUT account":
		return c.changeAccount(body)
	case "PUT fleet":
		return c.changeFleet(body)
	case "PUT device", "PUT location":
		if device == "" {
			return nil, errors.New("the query has no device")
		}
		if r.URL.Path == controlPrefix+"location" {
			return c.setLocation(device, body)
		}
		return c.setDevice(device, body)
	}
	return nil, fmt.Errorf("no such control: %s %s", r.Method, r.URL.Path)
}

var done = map[string]bool{"done": true}

func nonNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func (c *control) removeFault(id string) (any, error) {
	if id == "" {
		c.server.ClearFaults()
		return done, nil
	}
	n, err := strconv.ParseUint(id, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("fault id: %w", err)
	}
	c.server.faults.Remove(n)
	return done, nil
}

func (c *control) changeAccount(body []byte) (any, error) {
	var a struct {
		APIKey    *string
		TokenLife *string
	}
	if err := strict(body, &a); err != nil {
		return nil, err
	}
	if a.TokenLife != nil {
		life, err := time.ParseDuration(*a.TokenLife)
		if err != nil {
			return nil, err
		}
		if life > 0 {
			c.server.SetTokenLife(life)
		}
	}
	if a.APIKey != nil {
		c.server.SetKey(*a.APIKey)
	}
	return done, nil
}

func (c *control) changeFleet(body []byte) (any, error) {
	var f struct{ Profile string }
	if err := strict(body, &f); err != nil {
		return nil, err
	}
	p, err := fleet.ParseProfile(f.Profile)
	if err != nil {
		return nil, err
	}
	c.server.SetProfile(p)
	return done, nil
}

// strict decodes JSON with only the members of v: a misspelt one would make a
// test pass that tests nothing.
func strict(body []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	return dec.Decode(v)
}

func (c *control) setLocation(device string, body []byte) (any, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		c.server.SetLocation(device, nil)
		return done, nil
	}
	if !json.Valid(body) {
		return nil, errors.New("the location is not JSON")
	}
	c.server.SetLocation(device, body)
	return done, nil
}

func (c *control) setDevice(device string, body []byte) (any, error) {
	if len(body) == 0 {
		c.server.AddDevice(device)
		return done, nil
	}
	var check account.DeviceInfo
	if err := json.Unmarshal(body, &check); err != nil {
		return nil, err
	}
	c.server.SetDevice(device, func(info *account.DeviceInfo) {
		_ = json.Unmarshal(body, info) // checked above
	})
	return done, nil
}
