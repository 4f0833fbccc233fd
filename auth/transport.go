package auth

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"
)

// Transport sends requests with the token of Source. All fields are set before the first use; it is safe for
// concurrent use then.
type Transport struct {
	Source *Manager
	Base   http.RoundTripper // nil means http.DefaultTransport
	// Admit, if set, is called before every request, including replays, and blocks until it may be sent.
	Admit func(*http.Request) error
	// Header is the header of all requests that have none. With the token it is made once for each token.
	Header http.Header

	common atomic.Pointer[common]
}

// common is the header of requests that have none of their own. It is never written to.
type common struct {
	token  Token
	header http.Header
}

// RoundTrip is [Transport.Send] with a copy of req, because a RoundTripper must not change its request.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	own := *req
	res, _, err := t.Send(&own)
	return res, err
}

// Send waits for a token and for admission, sends req with the token, and replays it once with another
// token if the answer is 401. A second 401 is returned as it is, and so is the first one of a resource that
// refuses tokens that others are served with. Send returns the token that the answer is for. A body is sent again
// only if it is a [Body] or req has GetBody. Requests for any other origin than the token endpoint's fail with
// [ErrForeignHost]. The request is the transport's from the call on.
func (t *Transport) Send(req *http.Request) (*http.Response, Token, error) {
	if !sameOrigin(req.URL, t.Source.cfg.Endpoint) {
		closeBody(req)
		return nil, Token{}, ErrForeignHost
	}
	header := req.Header
	res, token, err := t.send(req)
	if err != nil || res.StatusCode != http.StatusUnauthorized || !t.Source.refused(token, false) {
		return res, token, err
	}
	again, ok := rewind(req)
	if !ok {
		return res, token, nil
	}
	// Read a bounded part to the end, so that the connection can be reused.
	_, _ = io.CopyN(io.Discard, res.Body, 64<<10)
	_ = res.Body.Close()
	second := *req // net/http may not be done with the first one
	second.Header, second.Body = header, again
	res, token, err = t.send(&second)
	if err == nil && res.StatusCode == http.StatusUnauthorized {
		t.Source.refused(token, true)
	}
	return res, token, err
}

// send sends req once.
func (t *Transport) send(req *http.Request) (*http.Response, Token, error) {
	token, err := t.admit(req)
	if err != nil {
		closeBody(req)
		return nil, Token{}, err
	}
	req.Header = t.header(req.Header, token)
	base := t.Base
	if base == nil {
		base = http.DefaultTransport
	}
	res, err := base.RoundTrip(req)
	if err == nil && accepts(res.StatusCode) {
		t.Source.accepted(token)
	}
	return res, token, err
}

// header returns the header of a request, with the token.
func (t *Transport) header(own http.Header, token Token) http.Header {
	if own != nil {
		return withToken(own, token)
	}
	c := t.common.Load()
	if c == nil || c.token != token {
		c = &common{token, withToken(t.Header, token)}
		t.common.Store(c)
	}
	return c.header
}

// withToken returns a copy of a header with the token.
func withToken(header http.Header, token Token) http.Header {
	out := make(http.Header, len(header)+1)
	maps.Copy(out, header)
	out["Authorization"] = token.g.header
	return out
}

// admit returns a token that is held when the request is admitted. Admission can take longer than a token lasts,
// and the wait for another one longer than an admission is good for: after a wait, admission is asked for again.
func (t *Transport) admit(req *http.Request) (Token, error) {
	for {
		// Before admission, so that no place in the budget is taken while there is nothing to send.
		token, err := t.Source.Token(req.Context())
		if err != nil || t.Admit == nil {
			return token, err
		}
		if err := t.Admit(req); err != nil {
			return Token{}, err
		}
		if g := t.Source.cur.Load(); g.usable(time.Now()) {
			return Token{g}, nil
		}
	}
}

// accepts reports whether an answer shows that the API took the token. 429 and 5xx may come from something in
// front of it that never looked.
func accepts(status int) bool {
	return status != http.StatusUnauthorized && status != http.StatusTooManyRequests && status < 500
}

func sameOrigin(a, b *url.URL) bool { return a.Host == b.Host && a.Scheme == b.Scheme }

func closeBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close()
	}
}

// Body is a request body that [Transport] can send again and net/http cannot: with GetBody set, net/http
// would by itself repeat some requests on another connection, past the budget and, for a POST, twice.
// A Body is for one request at a time.
type Body struct {
	data []byte
	bytes.Reader
}

// NewBody returns a body of data, which must not change while it is in use. The request's ContentLength is
// for the caller to set.
func NewBody(data []byte) *Body {
	b := &Body{data: data}
	b.Reset(data)
	return b
}

// Close does nothing.
func (b *Body) Close() error { return nil }

// rewind returns the body to send again. The first body may still be in the hands of net/http, so it is never
// the same one.
func rewind(req *http.Request) (io.ReadCloser, bool) {
	if b, ok := req.Body.(*Body); ok {
		return NewBody(b.data), true
	}
	if req.Body == nil || req.Body == http.NoBody {
		return req.Body, true
	}
	if req.GetBody == nil {
		return nil, false
	}
	body, err := req.GetBody()
	return body, err == nil
}
