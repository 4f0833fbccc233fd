package fault_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"plaspy-bridge/bridge/sim/fault"
)

func TestRuleJSON(t *testing.T) {
	want := fault.Rule{
		Kind: fault.Status, Endpoint: "lastLocation", Device: "a*", From: time.Unix(1, 0).UTC(), Times: 3, Probability: 0.5, Done: true,
		Status: 503, Body: "b", RetryAfter: time.Second, RetryDate: true, RetryText: "t", Delay: time.Minute, Tail: 2, Size: 7, Target: "x",
	}
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got fault.Rule
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("through %s (-got +want):\n%s", b, diff)
	}
	for _, bad := range []string{`{"kind":"none"}`, `{}`, `{"kind":"reset","dellay":"1s"}`, `{"kind":"slow","delay":5}`, `[]`} {
		if err := json.Unmarshal([]byte(bad), &got); err == nil {
			t.Errorf("no error for %s", bad)
		}
	}
	for _, k := range fault.Kinds() {
		if err := json.Unmarshal([]byte(`{"kind":"`+string(k)+`"}`), &got); err != nil {
			t.Errorf("%s: %v", k, err)
		}
	}
}
