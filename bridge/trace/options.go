package trace

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"golang.org/x/net/http/httpguts"
)

// Protocols of OTLP, as OTEL_EXPORTER_OTLP_PROTOCOL has them.
const (
	ProtocolGRPC = "grpc"
	ProtocolHTTP = "http/protobuf"
	ProtocolJSON = "http/json"
)

// Options say where traces go, which, and what they say of this process. They
// come from OpenTelemetry's own environment variables, whose meaning they have.
type Options struct {
	Endpoint string // URL of the collector, with user and password if it wants those; empty: there are no traces
	Protocol string // one of the above
	Headers  string // name=value, comma separated, as in [ParsePairs]
	// CA, Cert and Key are files in PEM; empty: the system's authorities, and no
	// certificate of our own.
	CA, Cert, Key string
	Compress      bool          // with gzip
	Timeout       time.Duration // of one export; 0: 10 s
	Sampler       string        // one of Samplers; empty: the first
	Ratio         float64       // of the samplers that have one, 0 to 1
	Service       string        // service.name
	Version       string        // service.version
	Instance      string        // service.instance.id
	Attributes    string        // more of the resource's, as in [ParsePairs]
}

// Samplers are the values of OTEL_TRACES_SAMPLER that there are, the default
// first.
var Samplers = []string{
	"parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio", "always_on", "always_off", "traceidratio",
}

func (o Options) sampler() (sdk.Sampler, error) {
	name, parent := strings.CutPrefix(o.Sampler, "parentbased_")
	var s sdk.Sampler
	switch name {
	case "":
		return sdk.ParentBased(sdk.AlwaysSample()), nil
	case "always_on":
		s = sdk.AlwaysSample()
	case "always_off":
		s = sdk.NeverSample()
	case "traceidratio":
		s = sdk.TraceIDRatioBased(o.Ratio)
	default:
		return nil, errors.New("sampler is unknown")
	}
	if parent {
		s = sdk.ParentBased(s)
	}
	return s, nil
}

// Pair is a name and its value.
type Pair struct{ Name, Value string }

// ParsePairs reads what OpenTelemetry writes as W3C Baggage without properties:
// name=value, comma separated, values percent-encoded. Its error does not quote
// the text, which may be a secret.
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
			return nil, fmt.Errorf("entry number %d is not what an HTTP header can be", i+1)
		}
		headers[p.Name] = p.Value
	}
	return headers, nil
}
