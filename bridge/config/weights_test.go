package config

import (
	"reflect"
	"strings"
	"testing"
)

func TestWeights(t *testing.T) {
	c := Config{Weights: []string{"ambulance-*=8", "a=b=0.1", " x = 64 ", "1=1"}}
	want := []Weight{{"ambulance-*", 8}, {"a=b", 0.1}, {"x", 64}, {"1", 1}}
	if got := c.DeviceWeights(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	var k checker
	if k.weights(c); len(k.faults) > 0 {
		t.Error(k.faults)
	}
}

func TestWeightFaults(t *testing.T) {
	c := Config{Weights: []string{"a", "=2", "[=2", "a=", "a=x", "a=NaN", "a=0", "a=64.5", "a=-1", "good=2", "a=Inf"}}
	var k checker
	k.weights(c)
	want := []string{
		"(number 1) that has no weight", "(number 2) that has no glob", "(number 3) that has a wrong glob", "(number 4) that has a weight that is not a number",
		"(number 5) that has a weight that is not a number", "(number 6) that has a weight of NaN; expected 0.1 to 64", "(number 7) that has a weight of 0",
		"(number 8) that has a weight of 64.5", "(number 9) that has a weight of -1", "(number 11) that has a weight of +Inf",
	}
	if len(k.faults) != len(want) {
		t.Fatalf("got %v, want %d faults", k.faults, len(want))
	}
	for i, f := range k.faults {
		if f.Variable != "BRIDGE_WEIGHTS" || !strings.Contains(f.Problem, want[i]) {
			t.Errorf("got %v, want %q", f, want[i])
		}
	}
	if got := c.DeviceWeights(); !reflect.DeepEqual(got, []Weight{{"good", 2}}) {
		t.Errorf("got %v, want the good entry", got)
	}
}
