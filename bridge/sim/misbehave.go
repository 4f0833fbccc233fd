package sim

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// misbehave answers a request with the fault that was picked for it. It panics
// with http.ErrAbortHandler if there is to be no answer.
func (s *Server) misbehave(w http.ResponseWriter, r *http.Request, c *call) (status int) {
	f := c.fault
	if f.Done && !f.answers() {
		a := s.work(r, c)
		a.release()
	}
	switch f.Kind {
	case Truncated, CutOff, HangBody:
		return s.cut(w, r, c)
	case Hang:
		hang(r)
	case ResetUnread:
		reset(w)
	case Reset:
		drain(r)
		reset(w)
	case NotHTTP:
		drain(r)
		s.notHTTP(w)
	case Huge, Endless, GzipBomb:
		drain(r)
		return s.flood(w, r, f)
	}
	if !f.shapes() {
		drain(r)
		a := s.whole(f)
		f.headers(w.Header())
		return write(w, &a)
	}
	a := s.work(r, c)
	return write(w, &a)
}

// whole is the answer of the faults that are one short body.
func (s *Server) whole(f *Fault) answer {
	a := newAnswer(http.StatusOK)
	body := ""
	switch f.Kind {
	case Unauthorized:
		a.release()
		a = s.failure(http.StatusUnauthorized, "Unauthorized.")
	case Throttle:
		a.release()
		a = s.failure(http.StatusTooManyRequests, "Too many requests in a short time.")
	case Refuse:
		body = `{"success":false,"error":"Simulated refusal.","apiUsage":0,"apiDailyUsage":0}`
	case HTML:
		body = "<!DOCTYPE html>\n<html><head><title>Maintenance</title></head><body><h1>We will be back soon</h1></body></html>\n"
	case Empty:
	case WrongTypes:
		body = `{"success":"true","error":{},"token":42,"expires":[],"devices":{"id":7},"device":[],"groups":"none",` +
			`"lastLocation":[1],"locations":7,"alerts":"none","apiUsage":"1","apiDailyUsage":null}`
	case Garbage:
		b := make([]byte, 700)
		for i := range b {
			b[i] = byte(rand.Uint32())
		}
		body = string(b)
	case Redirect:
		a.status = http.StatusFound
	default:
		a.release()
		a = s.failure(http.StatusInternalServerError, "Simulated error.")
	}
	if f.Body != "" {
		body = f.Body
	}
	if body != "" {
		a.body = append(a.body[:0], body...)
	}
	if f.Status != 0 {
		a.status = f.Status
	}
	return a
}

// headers sets those that the fault asks for.
func (f *Fault) headers(h http.Header) {
	switch {
	case f.RetryText != "":
		h.Set("Retry-After", f.RetryText)
	case f.RetryAfter > 0 && f.RetryDate:
		h.Set("Retry-After", time.Now().Add(f.RetryAfter+time.Second-1).UTC().Format(http.TimeFormat))
	case f.RetryAfter > 0:
		h.Set("Retry-After", strconv.FormatInt(int64((f.RetryAfter+time.Second-1)/time.Second), 10))
	}
	if f.Kind == Redirect {
		target := f.Target
		if target == "" {
			target = "http://elsewhere.invalid/"
		}
		h.Set("Location", target)
	}
}

// cut sends the first half of the API's answer.
func (s *Server) cut(w http.ResponseWriter, r *http.Request, c *call) (status int) {
	a := s.work(r, c)
	half := len(a.body) / 2
	if c.fault.Kind == Truncated {
		a.body = a.body[:half]
		return write(w, &a)
	}
	w.Header()["Content-Type"] = jsonType
	w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body[:half])
	_ = http.NewResponseController(w).Flush() // has no effect if the client has left
	a.release()
	if c.fault.Kind == HangBody {
		hang(r)
	}
	reset(w)
	return 0
}

// hang waits for the client to leave.
func hang(r *http.Request) {
	drain(r) // net/http notices a client that leaves only once the body is read
	<-r.Context().Done()
	panic(http.ErrAbortHandler)
}

// drain reads the request's body, like a server that fails late.
func drain(r *http.Request) {
	_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, maxBody))
}

// reset ends the connection with an RST if possible (HTTP/1 over
// TCP), the request alone elsewhere.
func reset(w http.ResponseWriter) {
	if conn := hijack(w); conn != nil {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // then the kernel sends an RST at Close
		}
		_ = conn.Close()
	}
	panic(http.ErrAbortHandler)
}

func (s *Server) notHTTP(w http.ResponseWriter) {
	if conn := hijack(w); conn != nil {
		_, _ = conn.Write([]byte("\x00\x17\x03SSH-2.0-simulated\r\n\r\n"))
		_ = conn.Close()
	}
	panic(http.ErrAbortHandler)
}

func hijack(w http.ResponseWriter) net.Conn {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil
	}
	return conn
}

// flood sends more than a client should take.
func (s *Server) flood(w http.ResponseWriter, r *http.Request, f *Fault) (status int) {
	size := f.Size
	if size <= 0 {
		size = 200_000_000
	}
	h := w.Header()
	h["Content-Type"] = jsonType
	prefix := `{"success":true,"error":null,"padding":"`
	const suffix = `"}`
	chunk := bytes.Repeat([]byte("x"), 1<<16)
	size = max(0, size-int64(len(prefix)+len(suffix)))
	switch f.Kind {
	case Huge:
		h.Set("Content-Length", strconv.FormatInt(size+int64(len(prefix)+len(suffix)), 10))
	case GzipBomb:
		h.Set("Content-Encoding", "gzip")
		// A gzip stream may consist of members, so one packed chunk, sent
		// over and over, costs next to nothing.
		prefix, chunk = string(pack([]byte(prefix))), pack(bytes.Repeat([]byte("x"), 1<<20))
		size = (size + 1<<20 - 1) / (1 << 20) * int64(len(chunk))
	}
	w.WriteHeader(http.StatusOK)
	if _, err := io.WriteString(w, prefix); err != nil {
		return http.StatusOK
	}
	for size > 0 || f.Kind == Endless {
		part := chunk
		if f.Kind != Endless {
			part = chunk[:min(size, int64(len(chunk)))]
			size -= int64(len(part))
		}
		if _, err := w.Write(part); err != nil || r.Context().Err() != nil {
			return http.StatusOK // the client has had enough
		}
	}
	if f.Kind == GzipBomb {
		_, _ = w.Write(pack([]byte(suffix)))
	} else {
		_, _ = io.WriteString(w, suffix)
	}
	return http.StatusOK
}

func pack(b []byte) []byte {
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	_, _ = z.Write(b) // into memory
	_ = z.Close()
	return buf.Bytes()
}

// distort changes the lastLocation that begins at start and ends the body.
func (f *Fault) distort(body []byte, start int) []byte {
	raw := body[start:]
	if len(raw) == 0 {
		return body
	}
	switch f.Kind {
	case NoLocation:
		return body[:start]
	case NullIsland:
		raw = setMember(setMember(raw, "latitude", "0"), "longitude", "0")
	case OutOfRange:
		raw = setMember(raw, "latitude", "91.5")
	case BadTime:
		text := f.Body
		if text == "" {
			text = "yesterday"
		}
		raw = setMember(raw, "dateTime", string(mustJSON(text)))
	case BadUTF8:
		raw = append([]byte("{\"driver\":\"Jos\xe9 \xff\xed\xa0\x80\","), raw[1:]...)
	default:
		return body
	}
	return append(body[:start], raw...)
}

// setMember is an object with the value of a top-level member replaced; the
// object itself if it has no such member.
func setMember(object []byte, name, value string) []byte {
	dec := json.NewDecoder(bytes.NewReader(object))
	if _, err := dec.Token(); err != nil {
		return object
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return object
		}
		var old json.RawMessage
		if err := dec.Decode(&old); err != nil {
			return object
		}
		if key == name {
			end := int(dec.InputOffset())
			out := append([]byte{}, object[:end-len(old)]...)
			out = append(out, value...)
			return append(out, object[end:]...)
		}
	}
	return object
}

// distortList is the device list with the fault's devices changed.
func (s *Server) distortList(list []byte, f *Fault) []byte {
	if f.Kind == EmptyList {
		return []byte("[]")
	}
	if f.Kind != Duplicate && f.Kind != Expired {
		return list
	}
	var all []json.RawMessage
	if err := json.Unmarshal(list, &all); err != nil {
		return list // a test set a broken entry: as broken as before
	}
	var out []string
	for _, raw := range all {
		var info struct{ ID string }
		_ = json.Unmarshal(raw, &info) // without an id it matches only a glob for all
		if f.Device != "" && !glob(f.Device, info.ID) {
			out = append(out, string(raw))
			continue
		}
		if f.Kind == Expired {
			yesterday := time.Now().Add(-24 * time.Hour).UTC().Format(`"` + time.RFC3339 + `"`)
			out = append(out, string(setMember(raw, "expires", yesterday)))
			continue
		}
		out = append(out, string(raw), string(raw))
	}
	return []byte("[" + strings.Join(out, ",") + "]")
}
