package sim

import (
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"plaspy-bridge/bridge/sim/account"
)

// maxBody is the longest request body that is accepted, in bytes.
const maxBody = 1 << 20

// issueToken is the token endpoint.
func (s *Server) issueToken(r *http.Request) answer {
	body, refusal := s.jsonBody(r)
	if refusal.status != 0 {
		return refusal
	}
	var req struct{ UserName, APIKey string }
	if err := json.Unmarshal(body, &req); err != nil {
		return s.failure(http.StatusBadRequest, "Invalid request body.")
	}
	tok, expires, ok := s.tokens.Issue(req.UserName, req.APIKey, time.Now())
	if !ok {
		a := newAnswer(s.opts.RefusedStatus)
		a.body = append(a.body, `{"success":false,"token":null,"expires":null,"error":"Invalid API key or username."}`...)
		return a
	}
	a := newAnswer(http.StatusOK)
	a.body = append(a.body, `{"success":true,"token":`...)
	a.body = appendString(a.body, tok)
	a.body = append(a.body, `,"expires":`...)
	a.body = appendString(a.body, expires.Add(s.opts.Skew).UTC().Format("2006-01-02T15:04:05Z"))
	a.body = append(a.body, `,"error":null}`...)
	return a
}

// deviceList is GET /api/devices.
func (s *Server) deviceList(c *call) answer { return s.list(c, `,"devices":`, s.DevicesJSON()) }

// groupList is GET /api/groups.
func (s *Server) groupList(c *call) answer { return s.list(c, `,"groups":`, s.GroupsJSON()) }

func (s *Server) list(c *call, member string, list []byte) answer {
	if c.fault != nil {
		list = c.fault.List(list)
	}
	return s.single(member, list)
}

// deviceEntry is GET /api/devices/{id}.
func (s *Server) deviceEntry(c *call) answer { return s.single(`,"device":`, c.device.Entry()) }

// single is an answer with one member.
func (s *Server) single(member string, value []byte) answer {
	a := s.success(1)
	a.body = append(a.body, member...)
	a.body = append(a.body, value...)
	a.body = append(a.body, '}')
	return a
}

// lastLocation is GET /api/devices/{id}/lastLocation, by far the most frequent
// request.
func (s *Server) lastLocation(c *call) answer {
	const member = `,"lastLocation":`
	a := s.success(1)
	a.body = append(a.body, member...)
	start := len(a.body)
	a.body = c.device.AppendLocation(a.body, account.Request{Seq: c.seq, Token: c.token, Fault: c.fault})
	if len(a.body) == start { // nothing to show: the member is left out
		a.body = a.body[:start-len(member)]
	}
	a.body = append(a.body, '}')
	return a
}

// post is POST .../locations and .../alerts, under both readings of the
// documentation. A body with a location stores it, a body without one asks. An
// alertName with an instant for a range (from equals to) raises an alert, with a
// range it filters. Either way the answer has the entries in the range.
func (s *Server) post(r *http.Request, c *call) answer {
	body, refusal := s.jsonBody(r)
	if refusal.status != 0 {
		return refusal
	}
	p, err := account.ParseSubmission(body, c.endpoint)
	if err != nil {
		return s.failure(http.StatusBadRequest, "Validation failed: "+err.Error())
	}
	return s.accept(c, &p, account.Post{
		Seq: c.seq, At: time.Now(), Token: c.token, Endpoint: c.endpoint.String(), Device: c.id,
		Key: r.Header.Get("Idempotency-Key"), Body: string(body),
	})
}

// accept stores a valid post, unless its key is known, and answers it.
func (s *Server) accept(c *call, p *account.Submission, taken account.Post) (a answer) {
	if c.fault != nil {
		taken.Fault = c.fault.Kind
	}
	first := c.device.Accept(p, taken, func(entries []byte, n int) []byte {
		a = s.success(max(1, n))
		a.body = fmt.Appendf(a.body, `,"%s":%s}`, taken.Endpoint, entries)
		return a.body
	})
	if a.status == 0 { // the key was known
		a = newAnswer(http.StatusOK)
		a.body = append(a.body, first...)
	}
	return a
}

// bearer returns the token that a request carries.
func bearer(r *http.Request) string {
	tok, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return tok
}

// jsonBody reads a request's body. The refusal has a status if the body is not
// JSON or is too long.
func (s *Server) jsonBody(r *http.Request) (body []byte, refusal answer) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" {
		return nil, s.failure(http.StatusUnsupportedMediaType, "Content-Type must be application/json.")
	}
	body, ok := readBody(r)
	if !ok {
		return nil, s.failure(http.StatusRequestEntityTooLarge, "Request body too large.")
	}
	return body, answer{}
}

// readBody reads a request's body; ok is false if it is too long. A client that
// leaves early gets no answer.
func readBody(r *http.Request) (body []byte, ok bool) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	return body, len(body) <= maxBody
}
