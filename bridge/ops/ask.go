package ops

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// maxAnswer bounds the size of an answer, in case another program listens on the port.
const maxAnswer = 1 << 20

// Ask asks the bridge that listens on addr, an address as in BRIDGE_HTTP_ADDR,
// whether it is ready, or with live whether it is alive. It returns nil for yes, and
// an error with the reasons for no. If addr is every interface, it connects to
// loopback.
func Ask(ctx context.Context, addr string, live bool) error {
	path := "/readyz"
	if live {
		path = "/livez"
	}
	status, body, err := read(ctx, addr, path)
	if err != nil {
		return err
	}
	if status == http.StatusOK {
		return nil
	}
	return reasons(status, body)
}

// AskReady returns the answer at /readyz of the bridge that listens on addr, ready
// or not.
func AskReady(ctx context.Context, addr string) (Readiness, error) {
	status, body, err := read(ctx, addr, "/readyz")
	if err != nil {
		return Readiness{}, err
	}
	var r Readiness
	if err := json.Unmarshal(body, &r); err != nil || len(r.Parts) == 0 {
		return Readiness{}, reasons(status, body)
	}
	return r, nil
}

// Notes returns a line for each part that is not ready or degraded, in order.
func (r Readiness) Notes() []string {
	var notes []string
	for _, name := range slices.Sorted(maps.Keys(r.Parts)) {
		if p := r.Parts[name]; !p.OK || p.Degraded {
			notes = append(notes, name+": "+p.Reason)
		}
	}
	return notes
}

// read returns an answer of the bridge.
func read(ctx context.Context, addr, path string) (status int, body []byte, err error) {
	resp, err := Get(ctx, addr, path, "")
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	if body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer)); err != nil {
		return 0, nil, fmt.Errorf("ask the bridge: %w", err)
	}
	return resp.StatusCode, body, nil
}

// Get requests a path from the bridge that listens on addr, with token if it is not
// empty. The caller closes the body.
func Get(ctx context.Context, addr, path, token string) (*http.Response, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("address of the bridge: %w", err)
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip.Is6() {
			host = "::1"
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+path, nil)
	if err != nil {
		return nil, fmt.Errorf("address of the bridge: %w", err)
	}
	req.Host = "localhost" // the bridge may refuse other names
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	// No proxy and no idle connections: this is one request to the same machine.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the bridge: %w", err)
	}
	return resp, nil
}

// reasons returns the error for an answer other than 200.
func reasons(status int, body []byte) error {
	var said struct {
		Parts      map[string]PartStatus  `json:"parts"`
		Heartbeats map[string]HeartStatus `json:"heartbeats"`
	}
	if json.Unmarshal(body, &said) != nil || len(said.Parts)+len(said.Heartbeats) == 0 {
		return fmt.Errorf("another program seems to listen on this address: it answers %d %s", status, http.StatusText(status))
	}
	var lines []string
	for name, part := range said.Parts {
		if !part.OK {
			lines = append(lines, name+": "+part.Reason)
		}
	}
	for name, heart := range said.Heartbeats {
		if !heart.OK {
			lines = append(lines, fmt.Sprintf("%s: no progress for %.0f s; the limit is %.0f s", name, heart.Age, heart.MaxAge))
		}
	}
	slices.Sort(lines)
	return errors.New(strings.Join(lines, "\n"))
}
