package trace

import (
	"fmt"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// Pair is a name and its value.
type Pair struct{ Name, Value string }

// ParsePairs parses OpenTelemetry's lists, which are W3C Baggage without properties:
// name=value, comma separated, values percent-encoded. Its error does not quote the
// text, which may be secret.
func ParsePairs(text string) ([]Pair, error) {
	var list []Pair
	for i, entry := range strings.Split(text, ",") {
		entry = strings.TrimSpace(entry)
		if entry == "" {
			continue
		}
		name, value, found := strings.Cut(entry, "=")
		name = strings.TrimSpace(name)
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if !found || err != nil || name == "" {
			return nil, fmt.Errorf("entry number %d is not name=value with the value percent-encoded", i+1)
		}
		list = append(list, Pair{name, value})
	}
	return list, nil
}

// ParseHeaders reads headers for the collector, by [ParsePairs].
func ParseHeaders(text string) (map[string]string, error) {
	pairs, err := ParsePairs(text)
	if err != nil {
		return nil, err
	}
	headers := make(map[string]string, len(pairs))
	for i, p := range pairs {
		if !httpguts.ValidHeaderFieldName(p.Name) || !httpguts.ValidHeaderFieldValue(p.Value) {
			return nil, fmt.Errorf("entry number %d is not a valid HTTP header", i+1)
		}
		headers[p.Name] = p.Value
	}
	return headers, nil
}
