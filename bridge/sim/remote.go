package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"plaspy-bridge/bridge/sim/account"
	"plaspy-bridge/bridge/sim/fault"
)

// Remote drives a simulator in another process through its control API. It is
// safe for concurrent use.
type Remote struct {
	URL    string       // as Listener.URL has it
	Client *http.Client // nil means http.DefaultClient
}

// call sends a request and decodes the answer into result, unless that is nil.
func (r *Remote) call(ctx context.Context, method, what, device string, body []byte, result any) error {
	u := r.URL + controlPrefix + what
	if device != "" {
		u += "?device=" + url.QueryEscape(device)
	}
	req, err := http.NewRequestWithContext(ctx, method, u, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("simulator: %w", err)
	}
	client := r.Client
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("simulator: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("simulator: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("simulator: %s %s: status %d: %.200s", method, what, resp.StatusCode, answer)
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(answer, result); err != nil {
		return fmt.Errorf("simulator: %s %s: %w", method, what, err)
	}
	return nil
}

// Counts is as Server.Counts.
func (r *Remote) Counts(ctx context.Context) (c Counts, err error) {
	return c, r.call(ctx, http.MethodGet, "counts", "", nil, &c)
}

// IDs is as Server.IDs.
func (r *Remote) IDs(ctx context.Context) (ids []string, err error) {
	return ids, r.call(ctx, http.MethodGet, "devices", "", nil, &ids)
}

// Shown is as Server.Shown.
func (r *Remote) Shown(ctx context.Context, id string) (list []account.Shown, err error) {
	return list, r.call(ctx, http.MethodGet, "shown", id, nil, &list)
}

// Changes is as Server.Changes.
func (r *Remote) Changes(ctx context.Context, id string) (list []account.Shown, err error) {
	return list, r.call(ctx, http.MethodGet, "changes", id, nil, &list)
}

// Posts is as Server.Posts.
func (r *Remote) Posts(ctx context.Context, id string) (list []account.Post, err error) {
	return list, r.call(ctx, http.MethodGet, "posts", id, nil, &list)
}

// Fault switches a fault on; its number is for RemoveFault.
func (r *Remote) Fault(ctx context.Context, f fault.Rule) (n uint64, err error) {
	var added struct{ ID uint64 }
	return added.ID, r.callJSON(ctx, http.MethodPost, "fault", f, &added)
}

// RemoveFault switches a fault off.
func (r *Remote) RemoveFault(ctx context.Context, n uint64) error {
	return r.call(ctx, http.MethodDelete, "fault?id="+strconv.FormatUint(n, 10), "", nil, nil)
}

// ClearFaults is as Server.ClearFaults.
func (r *Remote) ClearFaults(ctx context.Context) error {
	return r.call(ctx, http.MethodDelete, "fault", "", nil, nil)
}

// SetKey is as Server.SetKey.
func (r *Remote) SetKey(ctx context.Context, key string) error {
	return r.callJSON(ctx, http.MethodPut, "account", map[string]string{"apiKey": key}, nil)
}

// SetTokenLife is as Server.SetTokenLife.
func (r *Remote) SetTokenLife(ctx context.Context, d time.Duration) error {
	return r.callJSON(ctx, http.MethodPut, "account", map[string]string{"tokenLife": d.String()}, nil)
}

// SetProfile is as Server.SetProfile, for a name that fleet.ParseProfile knows.
func (r *Remote) SetProfile(ctx context.Context, name string) error {
	return r.callJSON(ctx, http.MethodPut, "fleet", map[string]string{"profile": name}, nil)
}

// RevokeTokens is as Server.RevokeTokens.
func (r *Remote) RevokeTokens(ctx context.Context) error {
	return r.call(ctx, http.MethodPost, "revoke", "", nil, nil)
}

// AddDevice is as Server.AddDevice.
func (r *Remote) AddDevice(ctx context.Context, id string) error {
	return r.call(ctx, http.MethodPut, "device", id, nil, nil)
}

// RemoveDevice is as Server.RemoveDevice.
func (r *Remote) RemoveDevice(ctx context.Context, id string) error {
	return r.call(ctx, http.MethodDelete, "device", id, nil, nil)
}

// SetLocation is as Server.SetLocation.
func (r *Remote) SetLocation(ctx context.Context, id string, raw json.RawMessage) error {
	return r.call(ctx, http.MethodPut, "location", id, raw, nil)
}

// ReleaseLocation is as Server.ReleaseLocation.
func (r *Remote) ReleaseLocation(ctx context.Context, id string) error {
	return r.call(ctx, http.MethodDelete, "location", id, nil, nil)
}

func (r *Remote) callJSON(ctx context.Context, method, what string, body, result any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("simulator: %w", err)
	}
	return r.call(ctx, method, what, "", b, result)
}
