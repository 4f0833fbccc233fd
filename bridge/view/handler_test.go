package view

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"
)

func get(t *testing.T, h http.Handler, path string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, resp *http.Response) string {
	t.Helper()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestAnswers(t *testing.T) {
	broken := func(context.Context, int) ([]DeadLetter, error) { return nil, errors.New("s3cret inside") }
	none := func(context.Context, int) ([]DeadLetter, error) { return nil, nil }
	source := &plain{why: func(id string) ([]byte, bool) { return []byte(`{"plan":"wait"}`), id == "dev 1/ü" }}
	tests := []struct {
		name, path string
		letters    DeadLetters
		header     []string
		status     int
		says       string
	}{
		{"page", "/", nil, nil, 200, "<title>plaspy-bridge</title>"},
		{"script", "/view/app.js", nil, nil, 200, "import"},
		{"elsewhere", "/elsewhere", nil, nil, 404, ""},
		{"the folder", "/view/", nil, nil, 404, ""},
		{"outside the folder", "/view/../view.go", nil, nil, 307, ""},
		{"why", "/view/why?device=dev%201%2F%C3%BC", nil, nil, 200, `{"plan":"wait"}`},
		{"why of an unknown device", "/view/why?device=x", nil, nil, 404, "does not poll"},
		{"why for another site's page", "/view/why?device=dev%201%2F%C3%BC", nil, []string{"Sec-Fetch-Site", "cross-site"}, 403, "own page"},
		{"events for another site's page", "/view/events", nil, []string{"Sec-Fetch-Site", "same-site"}, 403, "own page"},
		{"letters where they cannot be listed", "/view/letters", nil, nil, 404, ""},
		{"no letters", "/view/letters", none, []string{"Sec-Fetch-Site", "same-origin"}, 200, "[]"},
		{"letters", "/view/letters", someLetters(time.Now()), nil, 200, `\u003cimg src=x`},
		{"letters that cannot be read", "/view/letters", broken, nil, 502, "Could not read the dead letters"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp := get(t, New(Options{Source: source, DeadLetters: tt.letters, Log: quietLog}), tt.path, tt.header...)
			said := body(t, resp)
			if resp.StatusCode != tt.status || !strings.Contains(said, tt.says) || strings.Contains(said, "s3cret") {
				t.Errorf("%d %q, want %d with %q", resp.StatusCode, said, tt.status, tt.says)
			}
		})
	}
}

func TestEventsHead(t *testing.T) {
	v := New(Options{Source: &plain{}, Log: quietLog})
	w := httptest.NewRecorder()
	v.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodHead, "/view/events", nil))
	if w.Code != 200 || w.Header().Get("Content-Type") != "text/event-stream" || len(v.clients) != 0 {
		t.Errorf("%d %v, %d clients", w.Code, w.Header(), len(v.clients))
	}
}

func TestEventsWithoutRoom(t *testing.T) {
	v := New(Options{Source: &plain{}, Clients: 1, Log: quietLog})
	v.join()
	if resp := get(t, v, "/view/events"); resp.StatusCode != 503 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
}

// TestStream reads a stream over HTTP: it has the picture, then changes, and ends
// with the view, or leaves with the page.
func TestStream(t *testing.T) {
	source := &plain{}
	source.put(truck("a", 1))
	v := New(Options{Source: source, Log: quietLog})
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() {
		defer close(over)
		v.Run(ctx)
	}()
	server := httptest.NewServer(v)
	defer server.Close()
	defer func() { cancel(); <-over }()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	open := func(ctx context.Context) (*http.Response, *bufio.Reader) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/view/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
			t.Fatalf("%d %v", resp.StatusCode, resp.Header)
		}
		return resp, bufio.NewReader(resp.Body)
	}
	resp, in := open(t.Context())
	defer resp.Body.Close()
	p := newPage(t)
	until := func(ok func() bool) {
		var event []byte
		for !ok() {
			line, err := in.ReadBytes('\n')
			if err != nil {
				t.Fatal(err)
			}
			if event = append(event, line...); len(line) == 1 {
				p.take(event)
				event = nil
			}
		}
	}
	until(func() bool { return p.events["ready"] == 1 })
	source.put(truck("a", 2), truck("b", 1))
	until(func() bool { return len(p.rows) == 2 && p.byID()["a"].Lat == 200000 })

	leaving, leave := context.WithCancel(t.Context())
	second, _ := open(leaving)
	leave()
	_ = second.Body.Close()
	for gone := false; !gone; {
		v.mu.Lock()
		gone = len(v.clients) == 1
		v.mu.Unlock()
	}
	cancel()
	if _, err := io.Copy(io.Discard, in); err != nil {
		t.Errorf("the stream does not end well: %v", err)
	}
}

// wedged is a connection that takes nothing.
type wedged struct{ *httptest.ResponseRecorder }

func (wedged) Write([]byte) (int, error)           { return 0, errors.New("i/o timeout") }
func (wedged) SetWriteDeadline(at time.Time) error { return nil }

func TestStreamThatCannotBeWritten(t *testing.T) {
	v := New(Options{Source: &plain{}, Log: quietLog})
	v.ServeHTTP(wedged{httptest.NewRecorder()}, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/view/events", nil))
	if len(v.clients) != 0 {
		t.Error("the page still has its place")
	}
}

func TestAssets(t *testing.T) {
	v := New(Options{Source: &plain{}, Log: quietLog})
	entries, err := files.ReadDir("assets")
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]string{"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml", "bin": "application/octet-stream"}
	for _, e := range entries {
		path := "/view/" + e.Name()
		if e.Name() == "index.html" {
			path = "/"
		}
		data, err := fs.ReadFile(files, "assets/"+e.Name())
		if err != nil {
			t.Fatal(err)
		}
		plainly, packed := get(t, v, path), get(t, v, path, "Accept-Encoding", "br, gzip")
		if body(t, plainly) != string(data) || plainly.Header.Get("Content-Encoding") != "" {
			t.Errorf("%s: not the file", path)
		}
		zip, err := gzip.NewReader(packed.Body)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if unpacked, err := io.ReadAll(zip); err != nil || string(unpacked) != string(data) {
			t.Errorf("%s: not the file with gzip: %v", path, err)
		}
		kind := kinds[e.Name()[strings.LastIndexByte(e.Name(), '.')+1:]]
		if got := packed.Header.Get("Content-Type"); kind == "" || !strings.HasPrefix(got, kind) {
			t.Errorf("%s: type %q, want %q", path, got, kind)
		}
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "trusted-types 'none'", "frame-ancestors 'none'"} {
			if got := packed.Header.Get("Content-Security-Policy"); !strings.Contains(got, want) || strings.Contains(got, "unsafe") {
				t.Errorf("%s: policy %q, want %q in it", path, got, want)
			}
		}
		if again := get(t, v, path, "If-None-Match", packed.Header.Get("ETag")); again.StatusCode != 304 || body(t, again) != "" {
			t.Errorf("%s: %d for what the browser has", path, again.StatusCode)
		}
	}
}

// TestAssetsAreSelfContained checks that the assets have no link to other hosts, nothing
// inline, and no way in which text could become markup.
func TestAssetsAreSelfContained(t *testing.T) {
	forbidden := map[string]*regexp.Regexp{
		".html": regexp.MustCompile(`(?i)https?:|//[a-z]|\sstyle=|\son[a-z]+=|<style|<script[^>]*>[^<]|javascript:`),
		".js":   regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc|createContextualFragment|https?://[^w]`),
		".css":  regexp.MustCompile(`(?i)@import|url\(|https?:`),
	}
	err := fs.WalkDir(files, "assets", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := fs.ReadFile(files, path)
		if err != nil {
			return err
		}
		if rule := forbidden[path[strings.LastIndexByte(path, '.'):]]; rule != nil {
			for _, found := range rule.FindAllString(string(data), -1) {
				t.Errorf("%s: %q", path, found)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestWorld keeps the map small enough to be in every binary.
func TestWorld(t *testing.T) {
	data, err := files.ReadFile("assets/world.bin")
	if err != nil {
		t.Fatal(err)
	}
	if len(data) > 100<<10 {
		t.Errorf("world.bin has %d bytes", len(data))
	}
	labels := world(t, data)
	for name, want := range map[string][2]float64{"Russia": {60, 140}, "Fiji": {176, 179}, "Colombia": {-77, -69}, "United States of America": {-115, -80}} {
		if lon := labels[name]; lon < want[0] || lon > want[1] {
			t.Errorf("%s is written at %g degrees, want %g to %g", name, lon, want[0], want[1])
		}
	}
	for _, name := range []string{"Colombia", "Bogot", "United States of America", "Medell"} {
		if !strings.Contains(string(data), name) {
			t.Errorf("no %s on the map", name)
		}
	}
}

// world reads the outlines, and gives the longitude of each country's label. No
// line may jump from one edge of the map to the other: it would be drawn across it.
func world(t *testing.T, data []byte) map[string]float64 {
	t.Helper()
	unsigned := func() int {
		v, n := binary.Uvarint(data)
		data = data[n:]
		return int(v)
	}
	signed := func() int {
		v, n := binary.Varint(data)
		data = data[n:]
		return int(v)
	}
	for arc := range unsigned() {
		_ = unsigned() // a border or a coast
		for i := range unsigned() {
			dx, _ := signed(), signed()
			if i > 0 && (dx > 18000 || dx < -18000) {
				t.Errorf("arc %d jumps by %d hundredths of a degree", arc, dx)
			}
		}
	}
	labels := map[string]float64{}
	for range unsigned() {
		n := unsigned()
		name := string(data[:n])
		data = data[n:]
		labels[name] = float64(signed()) / 100
		_, _ = signed(), unsigned() // latitude, rank
		for range unsigned() {
			for range unsigned() {
				signed()
			}
		}
	}
	return labels
}
