package inprocess_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"plaspy-bridge/bridge/sim/inprocess"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// send has the handler answer one request with this body.
func send(ctx context.Context, t *testing.T, body string, h http.HandlerFunc) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://any/a%2Fb?c=d", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return inprocess.Transport(h).RoundTrip(req)
}

func TestRoundTrip(t *testing.T) {
	resp, err := send(t.Context(), t, "question", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Path", r.URL.EscapedPath()+" "+r.URL.RawQuery)
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.Copy(w, r.Body)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil || string(got) != "question" || resp.StatusCode != http.StatusTeapot || resp.ContentLength != 8 {
		t.Errorf("got %d, %d bytes, %q, %v", resp.StatusCode, resp.ContentLength, got, err)
	}
	if got := resp.Header.Get("X-Path"); got != "/a%2Fb c=d" || resp.Header.Get("Date") == "" {
		t.Errorf("got path %q, headers %v", got, resp.Header)
	}
}

// An aborted request is a reset before the answer, and a cut body after it.
func TestAbort(t *testing.T) {
	resp, err := send(t.Context(), t, "", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
		_ = resp.Body.Close()
	}
	resp, err = send(t.Context(), t, "", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, err := io.ReadAll(resp.Body); string(got) != "half" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %q, %v", got, err)
	}
}

// The handler's context ends with the client's, and when the client closes a
// streamed body; goleak notices a handler that does not end.
func TestClientLeaves(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	resp, err := send(ctx, t, "", func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
		_ = resp.Body.Close()
	}
	resp, err = send(t.Context(), t, "", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
}
