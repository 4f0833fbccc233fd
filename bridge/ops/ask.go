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

// maxAnswer bounds the size of an answer, in case another program listens there.
const maxAnswer = 1 << 20

// Ask asks the bridge that listens on addr, as BRIDGE_HTTP_ADDR has it, whether
// it is ready, or, with live, whether it lives. It returns nil for yes, and an
// error with the reasons for no. An address of all interfaces is asked on
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

// Get asks the bridge that listens on addr for a path, with the token of
// BRIDGE_HTTP_TOKEN if there is one. The caller closes the body.
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
	req.Host = "localhost" // it may answer to no other name
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	// No proxy, no connection kept: one question to a neighbour.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the bridge: %w", err)
	}
	return resp, nil
}

// reasons makes an error of a refusal.
func reasons(status int, body []byte) error {
	var said struct {
		Parts      map[string]PartStatus  `json:"parts"`
		Heartbeats map[string]HeartStatus `json:"heartbeats"`
	}
	if json.Unmarshal(body, &said) != nil || len(said.Parts)+len(said.Heartbeats) == 0 {
		return fmt.Errorf("what listens there answers %d %s, and not as a bridge does", status, http.StatusText(status))
	}
	var lines []string
	for name, part := range said.Parts {
		if !part.OK {
			lines = append(lines, name+": "+part.Reason)
		}
	}
	for name, heart := range said.Heartbeats {
		if !heart.OK {
			lines = append(lines, fmt.Sprintf("%s: no progress for %.0f s, at most %.0f s are normal", name, heart.Age, heart.MaxAge))
		}
	}
	slices.Sort(lines)
	return errors.New(strings.Join(lines, "\n"))
}
