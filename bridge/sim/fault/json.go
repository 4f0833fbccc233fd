package fault

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

// ruleJSON is a Rule as the control API has it: durations as Go writes them.
type ruleJSON struct {
	Kind        Kind      `json:"kind"`
	Endpoint    string    `json:"endpoint,omitempty"`
	Device      string    `json:"device,omitempty"`
	From        time.Time `json:"from,omitzero"`
	Until       time.Time `json:"until,omitzero"`
	Times       int       `json:"times,omitempty"`
	Probability float64   `json:"probability,omitempty"`
	Done        bool      `json:"done,omitempty"`
	Status      int       `json:"status,omitempty"`
	Body        string    `json:"body,omitempty"`
	RetryAfter  duration  `json:"retryAfter,omitempty"`
	RetryDate   bool      `json:"retryDate,omitempty"`
	RetryText   string    `json:"retryText,omitempty"`
	Delay       duration  `json:"delay,omitempty"`
	Tail        duration  `json:"tail,omitempty"`
	Size        int64     `json:"size,omitempty"`
	Target      string    `json:"target,omitempty"`
}

// duration is a time.Duration that JSON has as "1m30s".
type duration time.Duration

// MarshalText writes the duration as time.Duration does.
func (d duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads it as time.ParseDuration does.
func (d *duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = duration(v)
	return err
}

// MarshalJSON writes the fault as the control API takes it.
func (f Rule) MarshalJSON() ([]byte, error) {
	return json.Marshal(ruleJSON{
		f.Kind, f.Endpoint, f.Device, f.From, f.Until, f.Times, f.Probability, f.Done, f.Status, f.Body,
		duration(f.RetryAfter), f.RetryDate, f.RetryText, duration(f.Delay), duration(f.Tail), f.Size, f.Target,
	})
}

// UnmarshalJSON reads what MarshalJSON writes; unknown members and kinds are
// errors.
func (f *Rule) UnmarshalJSON(b []byte) error {
	var j ruleJSON
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&j); err != nil {
		return err
	}
	if !j.Kind.known() {
		return fmt.Errorf("unknown kind of fault %q", j.Kind)
	}
	*f = Rule{
		j.Kind, j.Endpoint, j.Device, j.From, j.Until, j.Times, j.Probability, j.Done, j.Status, j.Body,
		time.Duration(j.RetryAfter), j.RetryDate, j.RetryText, time.Duration(j.Delay), time.Duration(j.Tail), j.Size, j.Target,
	}
	return nil
}
