package ops

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// maxAnswer bounds what is read of an answer, should something else than a
// bridge listen there.
const maxAnswer = 1 << 20

// Ask asks the bridge that listens on addr, as BRIDGE_HTTP_ADDR has it, whether
// it is ready, or, with live, whether it lives. It returns nil for yes, and an
// error with the reasons for no. An address of all interfaces is asked on
// loopback.
func Ask(ctx context.Context, addr string, live bool) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("address of the bridge: %w", err)
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip.Is6() {
			host = "::1"
		}
	}
	path := "/readyz"
	if live {
		path = "/livez"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+path, nil)
	if err != nil {
		return fmt.Errorf("address of the bridge: %w", err)
	}
	req.Host = "localhost" // it may answer to no other name
	// No proxy, no connection kept: one question to a neighbour.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("ask the bridge: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("ask the bridge: %w", err)
	}
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	return reasons(resp.Status, body)
}

// reasons puts a refusal in words.
func reasons(status string, body []byte) error {
	var said struct {
		Parts      map[string]PartStatus  `json:"parts"`
		Heartbeats map[string]HeartStatus `json:"heartbeats"`
	}
	if json.Unmarshal(body, &said) != nil || len(said.Parts)+len(said.Heartbeats) == 0 {
		return fmt.Errorf("what listens there answers %s, and not as a bridge does", status)
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
