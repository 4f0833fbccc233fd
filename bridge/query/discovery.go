package query

import (
	"encoding/json"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

const description = "Devices, locations and alerts of the Plaspy account, through plaspy-bridge"

// verbs maps the subjects of service discovery to their answers. Each verb exists for
// all services, for all instances of this one, and for this instance.
func (s *Service) verbs() map[string]func() any {
	name, all := string(s.opt.Subjects), map[string]func() any{}
	for verb, answer := range map[micro.Verb]func() any{micro.PingVerb: s.ping, micro.InfoVerb: s.info, micro.StatsVerb: s.stats} {
		for _, suffix := range []string{"", "." + name, "." + name + "." + s.id} {
			all[micro.APIPrefix+"."+verb.String()+suffix] = answer
		}
	}
	return all
}

// discover answers a discovery request, to an inbox only.
func (s *Service) discover(m *nats.Msg, answer func() any) {
	if !s.answerable(m.Reply) {
		s.opt.Log.Debug("discovery request refused, its reply subject is not an inbox", "subject", m.Subject)
		return
	}
	data, err := json.Marshal(answer())
	if err != nil { // cannot happen: plain fields marshal
		return
	}
	s.respond(m, data, nil)
}

func (s *Service) identity() micro.ServiceIdentity {
	return micro.ServiceIdentity{Name: string(s.opt.Subjects), ID: s.id, Version: s.opt.Version, Metadata: map[string]string{}}
}

func (s *Service) ping() any {
	return micro.Ping{ServiceIdentity: s.identity(), Type: micro.PingResponseType}
}

func (s *Service) info() any {
	info := micro.Info{ServiceIdentity: s.identity(), Type: micro.InfoResponseType, Description: description}
	for _, e := range s.endpoints {
		info.Endpoints = append(info.Endpoints, micro.EndpointInfo{Name: e.name, Subject: e.subject, QueueGroup: e.queue, Metadata: map[string]string{}})
	}
	return info
}

func (s *Service) stats() any {
	stats := micro.Stats{ServiceIdentity: s.identity(), Type: micro.StatsResponseType, Started: s.started}
	for _, e := range s.endpoints {
		one := e.count.stats(len(s.slots))
		one.Name, one.Subject, one.QueueGroup = e.name, e.subject, e.queue
		stats.Endpoints = append(stats.Endpoints, one)
	}
	return stats
}

// counter counts the requests of one endpoint. Safe for concurrent use.
type counter struct {
	mu       sync.Mutex
	requests int           // guarded by mu, as are all below
	took     time.Duration // all requests together
	errors   int
	last     string
	codes    map[string]int
}

func (c *counter) answered(took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests++
	c.took += took
}

func (c *counter) failed(f *failure, took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests++
	c.took += took
	c.errors++
	c.last = f.Error()
	if c.codes == nil {
		c.codes = map[string]int{}
	}
	c.codes[strconv.Itoa(f.code)]++
}

// stats returns the counts as service discovery has them, with the errors by
// code beside.
func (c *counter) stats(underWay int) *micro.EndpointStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	codes := maps.Clone(c.codes)
	if codes == nil {
		codes = map[string]int{}
	}
	data, err := json.Marshal(map[string]any{"errors_by_code": codes, "under_way": underWay})
	if err != nil { // cannot happen: strings and numbers marshal
		data = nil
	}
	s := &micro.EndpointStats{NumRequests: c.requests, NumErrors: c.errors, LastError: c.last, ProcessingTime: c.took, Data: data}
	if c.requests > 0 {
		s.AverageProcessingTime = c.took / time.Duration(c.requests)
	}
	return s
}
