package config

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"plaspy-bridge/bridge/trace"
)

func TestTraceOptions(t *testing.T) {
	base := Config{
		TracesExporter: "otlp", OTLPEndpoint: "http://collector:4318/base/", OTLPProtocol: "http/protobuf", OTLPHeaders: "a=1",
		OTLPTimeout: 2500, OTLPCompression: "none", ServiceName: "s", ReplicaID: "r", ResourceAttributes: "x=y", TracesSampler: "always_on",
	}
	want := trace.Options{
		Endpoint: "http://collector:4318/base/v1/traces", Protocol: "http/protobuf", Headers: "a=1", Timeout: 2500 * time.Millisecond,
		Sampler: "always_on", Ratio: 1, Service: "s", Version: "v", Instance: "r", Attributes: "x=y",
	}
	for name, change := range map[string]func(c *Config, want *trace.Options){
		"as it is":    func(*Config, *trace.Options) {},
		"disabled":    func(c *Config, want *trace.Options) { c.TracingDisabled, want.Endpoint = true, "" },
		"no exporter": func(c *Config, want *trace.Options) { c.TracesExporter, want.Endpoint = "none", "" },
		"no endpoint": func(c *Config, want *trace.Options) { c.OTLPEndpoint, want.Endpoint = "", "" },
		"traces endpoint": func(c *Config, want *trace.Options) {
			c.OTLPTracesEndpoint, want.Endpoint = "https://h/x", "https://h/x"
		},
		"traces protocol": func(c *Config, want *trace.Options) { c.OTLPTracesProtocol, want.Protocol = "grpc", "grpc" },
		"traces headers":  func(c *Config, want *trace.Options) { c.OTLPTracesHeaders, want.Headers = "b=2", "b=2" },
		"compressed":      func(c *Config, want *trace.Options) { c.OTLPCompression, want.Compress = "gzip", true },
		"a part": func(c *Config, want *trace.Options) {
			c.TracesSampler, c.TracesSamplerArg = "traceidratio", "0.25"
			want.Sampler, want.Ratio = "traceidratio", 0.25
		},
		"certificates": func(c *Config, want *trace.Options) {
			c.OTLPCA, c.OTLPCert, c.OTLPKey = "ca", "cert", "key"
			want.CA, want.Cert, want.Key = "ca", "cert", "key"
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, w := base, want
			change(&c, &w)
			if diff := cmp.Diff(c.TraceOptions("v"), w); diff != "" {
				t.Errorf("options (-got +want):\n%s", diff)
			}
		})
	}
}
