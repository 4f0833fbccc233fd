package sim

import (
	"encoding/json"
	"net/http"
	"strconv"
	"sync"
)

// answer is the answer to a request. Its body may be borrowed from the pool.
type answer struct {
	status int
	body   []byte
	pooled *[]byte
	header [2]string // one more header line; empty means none
}

var bodies = sync.Pool{New: func() any { b := make([]byte, 0, 2048); return &b }}

// release returns the body to the pool. The answer must not be used after it.
func (a *answer) release() {
	if a.pooled != nil && cap(a.body) <= 64<<10 {
		*a.pooled = a.body[:0]
		bodies.Put(a.pooled)
	}
	a.pooled, a.body = nil, nil
}

// failure returns the API's kind of error.
func (s *Server) failure(status int, text string) answer {
	a := newAnswer(status)
	a.body = append(a.body, `{"success":false,"error":`...)
	a.body = appendString(a.body, text)
	a.body = append(a.body, `,"apiUsage":0,"apiDailyUsage":`...)
	a.body = strconv.AppendInt(a.body, s.ledger.used(0), 10)
	a.body = append(a.body, '}')
	return a
}

// success begins an answer of so many results. The caller appends members, each
// with a comma before it, and the closing brace.
func (s *Server) success(results int) answer {
	a := newAnswer(http.StatusOK)
	a.body = append(a.body, `{"success":true,"error":null,"apiUsage":`...)
	a.body = strconv.AppendInt(a.body, int64(results), 10)
	a.body = append(a.body, `,"apiDailyUsage":`...)
	a.body = strconv.AppendInt(a.body, s.ledger.used(results), 10)
	return a
}

func newAnswer(status int) answer {
	b := bodies.Get().(*[]byte)
	return answer{status: status, body: (*b)[:0], pooled: b}
}

// Header values that need no copy of their own: net/http does not write to them.
var jsonType = []string{"application/json; charset=utf-8"}

func (a *answer) setHeader(h http.Header) {
	h["Content-Type"] = jsonType
	if a.header[0] != "" {
		h.Set(a.header[0], a.header[1])
	}
}

// write sends an answer and releases it.
func write(w http.ResponseWriter, a *answer) (status int) {
	status = a.status
	a.setHeader(w.Header())
	w.WriteHeader(status)
	_, _ = w.Write(a.body) // fails only if the client has left
	a.release()
	return status
}

// appendString appends a JSON string.
func appendString(dst []byte, s string) []byte {
	b, _ := json.Marshal(s) // a string is always JSON
	return append(dst, b...)
}
