package view

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// open loads a page and waits until it is live.
func (b *browser) open(url string) {
	b.tb.Helper()
	b.do("Page.navigate", map[string]any{"url": url})
	b.wait(`document.querySelector("#feed").textContent.includes("live")`)
}

// TestStripTellsTheWorst checks that one line shows the worst trouble, as long
// as it lasts.
func TestStripTellsTheWorst(t *testing.T) {
	var mu sync.Mutex
	good := Status{Ready: true, Live: true, Parts: []Part{{Name: "nats", OK: true}}, Hearts: []Heart{{Name: "polls", OK: true}}}
	status := good
	set := func(change func(*Status)) {
		mu.Lock()
		defer mu.Unlock()
		status = good
		status.Parts, status.Hearts = append([]Part(nil), good.Parts...), append([]Heart(nil), good.Hearts...)
		change(&status)
	}
	source := &plain{why: func(string) ([]byte, bool) { return []byte(`{"plan":"wait","held":"the API is down"}`), true }}
	source.put(truck("a", 4), truck("b", 5))
	v := New(Options{Source: source, Log: quietLog, Status: func() Status {
		mu.Lock()
		defer mu.Unlock()
		return status
	}})
	b := chromium(t)
	b.look(1440, 900, "light")
	where := serve(t, v)
	b.open(where + "/")
	b.wait(`document.querySelector("#strip").hidden && document.querySelector("#ready").textContent.includes("Ready")`)
	says := func(name, words string) {
		t.Helper()
		b.wait(fmt.Sprintf(`!document.querySelector("#strip").hidden && document.querySelector("#strip").textContent.includes(%q)`, words))
		b.shoot("strip-" + name)
	}
	set(func(s *Status) {
		s.Ready = false
		s.Parts = append(s.Parts, Part{Name: "streams", Reason: "not connected", Since: time.Now()}, Part{Name: "publish", OK: true})
		s.Parts[0] = Part{Name: "nats", Reason: "connection refused", Since: time.Now().Add(-time.Minute)}
	})
	says("nats", "The bridge is not ready: nats, connection refused") // it failed first
	set(func(s *Status) { s.Live, s.Hearts[0].OK = false, false })
	says("stuck", "stuck: polls")
	set(func(s *Status) { s.Parts[0].Degraded, s.Parts[0].Reason = true, "slow" })
	b.wait(`document.querySelector("#strip").hidden && document.querySelector("#ready").textContent.includes("Ready, degraded: nats")`)
	for _, id := range []string{"a", "b"} {
		d := truck(id, 4)
		d.Polled, d.Next = time.Now().Add(-3*time.Minute), time.Now().Add(-2*time.Minute)
		source.put(d)
	}
	says("polls", "No poll has been answered, 2 devices are overdue: the API is down")
	b.wait(`document.querySelector(".line:not([hidden])").textContent.includes("late")`)
	source.put(truck("a", 4), truck("b", 5))
	b.wait(`document.querySelector("#strip").hidden`)
	quiet(t, b, where)
}

// TestNoRoom: the page says why its stream was refused.
func TestNoRoom(t *testing.T) {
	v := New(Options{Source: &plain{}, Log: quietLog, Clients: 1})
	where := serve(t, v)
	c := v.join()
	b := chromium(t)
	b.do("Page.navigate", map[string]any{"url": where + "/"})
	b.wait(`document.querySelector("#strip-what").textContent.includes("no room for another live view")`)
	v.leave(c)
	b.wait(`document.querySelector("#feed").textContent.includes("live") && document.querySelector("#strip").hidden`)
}

// TestPageBehindPassword loads the page with a name and password in its address, as
// some people do. A page may fetch nothing relative to that; and neither the
// address that it shows nor its requests have them.
func TestPageBehindPassword(t *testing.T) {
	source := newTraffic(3, time.Now())
	v := New(Options{Source: source, Log: quietLog})
	serve(t, v)
	var mu sync.Mutex
	var leaked []string
	locked := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, password, _ := r.BasicAuth()
		if line := r.RequestURI + r.Referer() + r.Header.Get("Cookie"); r.Referer() != "" || strings.Contains(line, "s3cret") {
			mu.Lock()
			leaked = append(leaked, line)
			mu.Unlock()
		}
		if password != "s3cret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		v.ServeHTTP(w, r)
	}))
	// The view ends first, and its streams with it.
	defer locked.Close()
	defer v.stop()
	b := chromium(t)
	b.look(1440, 900, "dark")
	b.open(strings.Replace(locked.URL, "http://", "http://me:s3cret@", 1) + "/")
	b.wait(`document.querySelector(".line:not([hidden])")`)
	b.eval(`document.querySelector(".line").click()`)
	b.wait(`document.querySelectorAll("#why-decisions li").length === 8`)
	if got := b.eval(`location.href + document.cookie + JSON.stringify(localStorage) + JSON.stringify(sessionStorage)`); strings.Contains(got, "s3cret") {
		t.Errorf("the page keeps the password: %s", got)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(leaked) > 0 {
		t.Errorf("requests with more data than they should have: %q", leaked)
	}
	for _, said := range b.troubles() {
		if !strings.Contains(said, "401") {
			t.Errorf("console: %s", said)
		}
	}
}

// TestOtherSites makes a page of another site try all that the browser permits: to open
// streams, to read answers, to show the page in a frame, to use its scripts.
func TestOtherSites(t *testing.T) {
	source := newTraffic(3, time.Now())
	v := New(Options{Source: source, Log: quietLog, Clients: 2})
	where := serve(t, v)
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprint(w, "<!doctype html><title>evil</title><iframe></iframe>")
	}))
	defer evil.Close()
	b := chromium(t)
	b.do("Page.navigate", map[string]any{"url": strings.Replace(evil.URL, "127.0.0.1", "localhost", 1)})
	b.wait(`document.title === "evil"`)
	where, err := url.JoinPath(where, "/")
	if err != nil {
		t.Fatal(err)
	}
	at, err := json.Marshal(where)
	if err != nil {
		t.Fatal(err)
	}
	got := b.eval(`(async (at) => {
		const out = {};
		const stream = new EventSource(at + "view/events");
		out.stream = await new Promise((ok) => { stream.addEventListener("hello", () => ok("told")); stream.onerror = () => ok("refused"); });
		const read = (path) => fetch(at + path).then((a) => a.text()).then((s) => "read " + s.length, () => "refused");
		out.why = await read("view/why?device=dev%201");
		out.page = await read("");
		const opaque = await fetch(at + "view/events", { mode: "no-cors" }).then((a) => a.type, () => "failed");
		out.opaque = opaque;
		const frame = document.querySelector("iframe");
		await new Promise((ok) => { frame.onload = ok; frame.src = at; setTimeout(ok, 3000); });
		try { out.frame = frame.contentDocument ? "blank" : "another site's"; } catch { out.frame = "another site's"; }
		return out;
	})(` + string(at) + `)`)
	var out map[string]string
	if err := json.Unmarshal([]byte(got), &out); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"stream", "why", "page"} {
		if out[what] != "refused" {
			t.Errorf("%s: %s, want refused", what, out[what])
		}
	}
	framed := false
	for _, said := range b.troubles() {
		framed = framed || strings.Contains(said, "frame-ancestors") || strings.Contains(said, "frame")
	}
	if !framed {
		t.Errorf("the browser did not refuse to show the page in a frame: %q", b.troubles())
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.open != 0 {
		t.Errorf("another site's page holds %d of the places", v.open)
	}
}
