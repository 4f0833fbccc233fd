package config

import (
	"strconv"
	"strings"

	"plaspy-bridge/bridge/glob"
)

// Weight is how much the delay of some devices counts, relative to 1 for the others.
type Weight struct {
	Glob   string // matches the ids of the devices
	Weight float64
}

const (
	minWeight = 0.1
	maxWeight = 64
)

// DeviceWeights returns the entries of BRIDGE_WEIGHTS. The first that matches a
// device decides. Entries that are wrong are left out.
func (c Config) DeviceWeights() []Weight {
	var weights []Weight
	for _, entry := range c.Weights {
		if w, problem := parseWeight(entry); problem == "" {
			weights = append(weights, w)
		}
	}
	return weights
}

// parseWeight reads one entry. An id may contain "=", a weight does not.
func parseWeight(entry string) (w Weight, problem string) {
	i := strings.LastIndexByte(entry, '=')
	if i < 0 {
		return w, "has no weight; expected glob=weight, such as ambulance-*=8"
	}
	pattern, text := strings.TrimSpace(entry[:i]), strings.TrimSpace(entry[i+1:])
	weight, err := strconv.ParseFloat(text, 64)
	globErr := glob.Check(pattern)
	switch {
	case pattern == "":
		return w, "has no glob; expected glob=weight, such as ambulance-*=8"
	case globErr != nil:
		return w, "has a wrong glob: " + globErr.Error()
	case err != nil:
		return w, "has a weight that is not a number; expected 0.1 to 64"
	case !(weight >= minWeight && weight <= maxWeight):
		return w, "has a weight of " + strconv.FormatFloat(weight, 'g', -1, 64) + "; expected 0.1 to 64"
	}
	return Weight{pattern, weight}, ""
}

// weights checks every entry of BRIDGE_WEIGHTS.
func (k *checker) weights(c Config) {
	for i, entry := range c.Weights {
		_, problem := parseWeight(entry)
		k.unless(problem == "", "BRIDGE_WEIGHTS", "has an entry (number %d) that %s", i+1, problem)
	}
}
