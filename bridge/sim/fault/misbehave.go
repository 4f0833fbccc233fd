package fault

import (
	"bytes"
	"compress/gzip"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"time"
)

// jsonType is a header value that needs no copy: net/http does not write to it.
var jsonType = []string{"application/json; charset=utf-8"}

// maxBody bounds how much of a request's body is read, in bytes.
const maxBody = 1 << 20

// Replace answers a request instead of the API. The function writes a body of
// the API's own kind of error. Replace panics with http.ErrAbortHandler if the
// fault leaves the request without an answer.
func (f *Rule) Replace(w http.ResponseWriter, r *http.Request, failure func(text string) []byte) (status int) {
	switch f.Kind {
	case Hang:
		hang(r)
	case ResetUnread:
		reset(w)
	}
	drain(r)
	switch f.Kind {
	case Reset:
		reset(w)
	case NotHTTP:
		notHTTP(w)
	case Huge, Endless, GzipBomb:
		return f.flood(w, r)
	}
	status, body := f.whole(failure)
	f.headers(w.Header())
	w.WriteHeader(status)
	_, _ = w.Write(body) // fails only if the client has left
	return status
}

// whole returns the answer of the faults that have one short body.
func (f *Rule) whole(failure func(text string) []byte) (status int, body []byte) {
	status = http.StatusOK
	switch f.Kind {
	case Unauthorized:
		status, body = http.StatusUnauthorized, failure("Unauthorized.")
	case Throttle:
		status, body = http.StatusTooManyRequests, failure("Too many requests in a short time.")
	case Refuse:
		body = []byte(`{"success":false,"error":"Simulated refusal.","apiUsage":0,"apiDailyUsage":0}`)
	case HTML:
		body = []byte("<!DOCTYPE html>\n<html><head><title>Maintenance</title></head><body><h1>We will be back soon</h1></body></html>\n")
	case Empty:
	case WrongTypes:
		body = []byte(`{"success":"true","error":{},"token":42,"expires":[],"devices":{"id":7},"device":[],"groups":"none",` +
			`"lastLocation":[1],"locations":7,"alerts":"none","apiUsage":"1","apiDailyUsage":null}`)
	case Garbage:
		body = make([]byte, 700)
		for i := range body {
			body[i] = byte(rand.Uint32())
		}
	case Redirect:
		status = http.StatusFound
	default:
		status, body = http.StatusInternalServerError, failure("Simulated error.")
	}
	if f.Body != "" {
		body = []byte(f.Body)
	}
	if f.Status != 0 {
		status = f.Status
	}
	return status, body
}

// headers sets the headers of a short answer.
func (f *Rule) headers(h http.Header) {
	h["Content-Type"] = jsonType
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

// Cut sends the first half of the API's answer. It then panics with
// http.ErrAbortHandler, unless the half is sent as if it were the whole.
func (f *Rule) Cut(w http.ResponseWriter, r *http.Request, status int, body []byte) {
	half := body[:len(body)/2]
	h := w.Header()
	h["Content-Type"] = jsonType
	if f.Kind == Truncated {
		w.WriteHeader(status)
		_, _ = w.Write(half) // fails only if the client has left
		return
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(half)
	_ = http.NewResponseController(w).Flush() // has no effect if the client has left
	if f.Kind == HangBody {
		hang(r)
	}
	reset(w)
}

// hang waits until the client leaves.
func hang(r *http.Request) {
	drain(r) // net/http notices a client that leaves only once the body is read
	<-r.Context().Done()
	panic(http.ErrAbortHandler)
}

// drain reads the request's body, as a server does that fails late.
func drain(r *http.Request) {
	_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, maxBody))
}

// reset ends the connection with an RST if it can (HTTP/1 over TCP), else the
// request alone.
func reset(w http.ResponseWriter) {
	if conn := hijack(w); conn != nil {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // then the kernel sends an RST at Close
		}
		_ = conn.Close()
	}
	panic(http.ErrAbortHandler)
}

// notHTTP sends bytes that are no HTTP answer.
func notHTTP(w http.ResponseWriter) {
	if conn := hijack(w); conn != nil {
		_, _ = conn.Write([]byte("\x00\x17\x03SSH-2.0-simulated\r\n\r\n"))
		_ = conn.Close()
	}
	panic(http.ErrAbortHandler)
}

// hijack returns the connection, nil if it cannot be taken over.
func hijack(w http.ResponseWriter) net.Conn {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil
	}
	return conn
}

// flood sends more than a client should accept.
func (f *Rule) flood(w http.ResponseWriter, r *http.Request) (status int) {
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
			return http.StatusOK // the client has left
		}
	}
	if f.Kind == GzipBomb {
		_, _ = w.Write(pack([]byte(suffix)))
	} else {
		_, _ = io.WriteString(w, suffix)
	}
	return http.StatusOK
}

// pack returns b as a gzip member.
func pack(b []byte) []byte {
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	_, _ = z.Write(b) // into memory
	_ = z.Close()
	return buf.Bytes()
}
