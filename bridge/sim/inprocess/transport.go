// Package inprocess carries HTTP requests to a handler in the same process: for
// benchmarks, and for testing/synctest bubbles, in which real sockets would keep
// time from advancing.
package inprocess

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"
)

// Transport returns a RoundTripper that passes requests to the handler. It
// behaves like a connection: http.ErrAbortHandler becomes ECONNRESET, the end of
// a context ends the request on both sides, and long bodies are streamed. It
// never unpacks gzip. Each request runs in a goroutine that ends with it.
func Transport(h http.Handler) http.RoundTripper { return transport{h} }

type transport struct{ handler http.Handler }

// outcome is the result of a request.
type outcome struct {
	resp *http.Response
	err  error
}

// RoundTrip passes the request to the handler.
func (t transport) RoundTrip(req *http.Request) (*http.Response, error) {
	body := req.Body
	if body == nil {
		body = http.NoBody
	}
	defer body.Close()
	uri := req.URL.RequestURI()
	u, err := url.ParseRequestURI(uri)
	if err != nil {
		return nil, fmt.Errorf("in-process request: %w", err)
	}
	ctx, cancel := context.WithCancel(req.Context())
	r := (&http.Request{
		Method: req.Method, URL: u, RequestURI: uri, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: req.Header, Body: body, ContentLength: req.ContentLength, Host: req.URL.Host, RemoteAddr: "in-process",
	}).WithContext(ctx)
	if r.Header == nil {
		r.Header = http.Header{}
	}
	w := &reply{request: req, header: http.Header{}, cancel: cancel, outcome: make(chan outcome, 1)}
	go w.run(t.handler, r)
	select {
	case o := <-w.outcome:
		return o.resp, o.err
	case <-req.Context().Done():
		cancel()
		return nil, context.Cause(req.Context())
	}
}

// reply is the handler's side of an answer. It buffers the body, and streams it
// as soon as the body exceeds the buffer of a connection.
type reply struct {
	request *http.Request
	header  http.Header
	cancel  context.CancelFunc
	outcome chan outcome

	status  int
	buffer  []byte
	stream  *io.PipeWriter
	written int64
}

const replyBuffer = 4 << 10

func (w *reply) run(h http.Handler, r *http.Request) {
	defer func() {
		switch p := recover(); {
		case p == nil:
			w.finish()
		case p == any(http.ErrAbortHandler):
			w.abort()
		default:
			panic(p)
		}
	}()
	h.ServeHTTP(w, r)
}

// Header is the answer's header, until it is sent.
func (w *reply) Header() http.Header { return w.header }

// WriteHeader sets the status, the first time.
func (w *reply) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

// Write appends to the body; a streamed one takes it when the client reads.
func (w *reply) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	w.written += int64(len(b))
	if w.stream == nil && len(w.buffer)+len(b) <= replyBuffer {
		w.buffer = append(w.buffer, b...)
		return len(b), nil
	}
	w.Flush()
	return w.stream.Write(b)
}

// Flush sends the header and the body so far.
func (w *reply) Flush() {
	if w.stream != nil {
		return
	}
	w.WriteHeader(http.StatusOK)
	pr, pw := io.Pipe()
	w.stream = pw
	body := struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(w.buffer), pr), closer(func() error { w.cancel(); return pr.Close() })}
	w.outcome <- outcome{resp: w.response(body, -1)} //nolint:bodyclose // the client's to close
}

type closer func() error

// Close calls the function.
func (c closer) Close() error { return c() }

func (w *reply) finish() {
	if w.stream != nil {
		var err error // io.EOF to the reader
		if n, declared := w.declared(); declared && w.written < n {
			err = io.ErrUnexpectedEOF
		}
		_ = w.stream.CloseWithError(err) // never fails
		return
	}
	w.WriteHeader(http.StatusOK)
	w.outcome <- outcome{resp: w.response(io.NopCloser(bytes.NewReader(w.buffer)), int64(len(w.buffer)))} //nolint:bodyclose // the client's to close
	w.cancel()
}

func (w *reply) abort() {
	if w.stream != nil {
		err := io.ErrUnexpectedEOF
		if ctx := w.request.Context(); ctx.Err() != nil {
			err = context.Cause(ctx) // as net/http has it for a client that left
		}
		_ = w.stream.CloseWithError(err) // never fails
		return
	}
	w.outcome <- outcome{err: &net.OpError{Op: "read", Net: "in-process", Err: syscall.ECONNRESET}}
	w.cancel()
}

func (w *reply) declared() (n int64, ok bool) {
	_, err := fmt.Sscan(w.header.Get("Content-Length"), &n)
	return n, err == nil
}

func (w *reply) response(body io.ReadCloser, length int64) *http.Response {
	if n, ok := w.declared(); ok {
		length = n
	}
	if w.header.Get("Date") == "" {
		w.header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	}
	return &http.Response{
		Status: fmt.Sprintf("%d %s", w.status, http.StatusText(w.status)), StatusCode: w.status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.header, Body: body, ContentLength: length, Request: w.request,
	}
}
