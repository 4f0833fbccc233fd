package view

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"plaspy-bridge/publisher/natstest/loopback"

	"github.com/prometheus/client_golang/prometheus"
)

// serve runs a view behind a server until the test ends.
func serve(tb testing.TB, v *View) string {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { v.Run(ctx) })
	server := httptest.NewServer(v)
	tb.Cleanup(func() {
		cancel()
		running.Wait()
		server.Close()
	})
	return server.URL
}

// quiet fails if the console has messages, or a request went to another server.
func quiet(t *testing.T, b *browser, url string) {
	t.Helper()
	for _, said := range b.troubles() {
		t.Errorf("console: %s", said)
	}
	for _, asked := range b.requests() {
		if !strings.HasPrefix(asked, url) && asked != "about:blank" {
			t.Errorf("asked elsewhere: %s", asked)
		}
	}
}

// TestPage looks at small and large fleets in both colour schemes.
func TestPage(t *testing.T) {
	for _, n := range []int{20, 5000} {
		t.Run(fmt.Sprintf("%d devices", n), func(t *testing.T) {
			b := chromium(t)
			url := serve(t, busy(t, n))
			b.look(1440, 900, "dark")
			b.do("Page.navigate", map[string]any{"url": url + "/"})
			b.wait(fmt.Sprintf(`document.querySelector("#feed").textContent.includes("live") && Number(document.querySelector("#grid").getAttribute("aria-rowcount")) === %d`, n+1))
			b.wait(`document.querySelectorAll(".line:not([hidden])").length > 10 && document.querySelector("#ready").textContent.includes("Ready")`)
			b.wait(`document.querySelector("#scale-text").textContent.includes("m")`)
			b.shoot(fmt.Sprintf("%d-dark", n))
			b.look(1440, 900, "light")
			b.shoot(fmt.Sprintf("%d-light", n))
			if rows := b.eval(`document.querySelectorAll(".line").length`); len(rows) > 2 {
				t.Errorf("%s rows in the document for %d devices: only those in sight should be there", rows, n)
			}
			b.eval(`document.querySelector("#grid").focus()`)
			for range 9 { // down to a row that has to make room for its details
				b.press("ArrowDown")
			}
			b.press("Enter")
			b.wait(`document.querySelectorAll("#why-decisions li").length === 8`)
			b.wait(`(() => { const r = document.querySelector("[aria-selected=true].line").getBoundingClientRect(), g = document.querySelector("#grid").getBoundingClientRect(); return r.top >= g.top && r.bottom <= g.bottom + 1; })()`)
			b.press("f")
			b.shoot(fmt.Sprintf("%d-why", n))
			b.press("Escape")
			b.wait(`document.querySelector("#why").hidden`)
			b.eval(`document.querySelector("#tab-alerts").click()`)
			b.shoot(fmt.Sprintf("%d-alerts", n))
			b.eval(`document.querySelector("#tab-health").click()`)
			b.wait(`document.querySelectorAll("#letters li").length === 3`)
			b.look(1440, 900, "dark")
			b.shoot(fmt.Sprintf("%d-health", n))
			quiet(t, b, url)
		})
	}
}

// TestHostileTexts shows names that would be markup, were they taken for it.
func TestHostileTexts(t *testing.T) {
	evil := `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`
	source := &plain{why: func(string) ([]byte, bool) {
		answer, err := json.Marshal(map[string]any{"plan": evil, "held": evil, "decisions": []map[string]any{{"at": time.Now(), "result": evil, "detail": evil, "id": evil, "published": 1, "fields": []string{evil, "speed"}, "times": 7}}})
		return answer, err == nil
	}}
	d := truck(evil+"id", 4.7, evil)
	d.Name = evil + "\u202e\n\ndata: x"
	source.put(d)
	v := New(Options{
		Source: source, Version: evil, Replica: evil, Log: quietLog,
		Status: func() Status {
			return Status{Parts: []Part{{Name: evil, Reason: evil}}, Hearts: []Heart{{Name: evil, OK: true}}, Facts: []Fact{{evil, evil}}}
		},
		DeadLetters: func(context.Context, int) ([]DeadLetter, error) {
			return []DeadLetter{{Sequence: 1, Device: evil, Kind: evil, Reason: evil, Error: evil}}, nil
		},
		Gatherer: oneLetter(),
	})
	url := serve(t, v)
	b := chromium(t)
	b.look(1280, 800, "light")
	b.do("Page.navigate", map[string]any{"url": url + "/"})
	b.wait(`document.querySelector(".line .chip") && document.querySelector("#parts li")`)
	b.eval(`document.querySelector(".line").click()`)
	b.wait(`document.querySelectorAll("#why-decisions li code").length === 2 && document.querySelector("#why-decisions").textContent.includes("×7")`)
	b.point("#marks", "#marks.over") // the only device is near the middle
	b.wait(`document.querySelector("#tip").textContent.includes("onerror") && !document.querySelector("#tip").hidden`)
	d.Alerts = []string{evil, evil + "2"}
	source.put(d)
	b.wait(`document.querySelectorAll(".line .chip").length === 2`)
	b.eval(`document.querySelector("#tab-alerts").click()`)
	b.wait(`document.querySelector("#events button")`)
	b.eval(`document.querySelector("#tab-health").click()`)
	b.wait(`document.querySelector("#letters li").textContent.includes("onerror") && document.querySelector("#strip").textContent.includes("onerror")`)
	b.shoot("hostile")
	if got := b.eval(`document.querySelectorAll("img, script").length + " " + document.title`); got != `"2 ! plaspy-bridge"` {
		t.Errorf("images, scripts and title: %s, want the page's own", got)
	}
	if got := b.eval(`document.querySelector(".line b").textContent`); !strings.Contains(got, "onerror") {
		t.Errorf("the name is shown as %s", got)
	}
	quiet(t, b, url)
}

// oneLetter are metrics with one dead letter.
func oneLetter() prometheus.Gatherer {
	reg := prometheus.NewRegistry()
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "plaspy_bridge_dead_letters", Help: "dead letters"})
	g.Set(1)
	reg.MustRegister(g)
	return reg
}

// TestPageComesBack stops the bridge under the page and starts it again.
func TestPageComesBack(t *testing.T) {
	source := &plain{}
	b := chromium(t)
	addr, err := new(loopback.Ports).Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	listener, err := loopback.Listen(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	run := func(l net.Listener, devices ...Device) (stop func()) {
		source.put(devices...)
		v := New(Options{Source: source, Log: quietLog})
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { v.Run(ctx) })
		server := &http.Server{Handler: v}
		running.Go(func() { _ = server.Serve(l) })
		return func() {
			cancel()
			_ = server.Close()
			running.Wait()
		}
	}
	stop := run(listener, truck("a", 1), truck("b", 2))
	b.look(1280, 800, "dark")
	b.do("Page.navigate", map[string]any{"url": "http://" + addr + "/"})
	b.wait(`document.querySelectorAll(".line:not([hidden])").length === 2`)
	stop()
	b.wait(`document.querySelector("#feed").dataset.state === "lost" && document.querySelector("#ready").dataset.state === "unknown"`)
	b.wait(`document.querySelector("#strip-what").textContent.includes("No connection") && !document.querySelector("#strip").hidden`)
	b.shoot("lost")
	if listener, err = loopback.Listen(t.Context(), addr); err != nil {
		t.Fatal(err)
	}
	stop = run(listener, truck("c", 1))
	defer stop()
	b.wait(`document.querySelector("#feed").textContent.includes("live") && document.querySelector("#shown").textContent === "1 device"`)
	b.wait(`document.querySelector(".line:not([hidden]) b").textContent === "Truck c"`)
	b.wait(`document.querySelector("#strip").hidden && !document.body.classList.contains("lost")`)
}

// TestTable sorts and filters with mouse and keys.
func TestTable(t *testing.T) {
	source := &plain{}
	for i := range 300 {
		d := truck(fmt.Sprint(i), float32(i)/10)
		d.Speed = float32(i)
		if i == 7 {
			d.Alerts = []string{"SOSButton"}
		}
		source.put(d)
	}
	url := serve(t, New(Options{Source: source, Log: quietLog}))
	b := chromium(t)
	b.look(1280, 800, "dark")
	b.do("Page.navigate", map[string]any{"url": url + "/"})
	first := func(name string) {
		t.Helper()
		b.wait(fmt.Sprintf(`document.querySelector(".line:not([hidden]) b").textContent === %q`, name))
	}
	first("Truck 0")
	b.press("/")
	for _, key := range "sosb" {
		b.press(string(key))
	}
	first("Truck 7")
	b.wait(`document.querySelector("#shown").textContent === "1 of 300 devices"`)
	b.eval(`{ const f = document.querySelector("#filter"); f.value = ""; f.dispatchEvent(new Event("input")); f.blur(); }`)
	sort := func(column int) {
		b.eval(fmt.Sprintf(`document.querySelectorAll("#grid-head button")[%d].click()`, column))
	}
	sort(3)
	first("Truck 299")
	sort(3)
	first("Truck 0")
	sort(4)
	first("Truck 7")
	sort(0)
	b.eval(`document.querySelector("#grid").focus()`)
	b.press("End")
	b.wait(`document.querySelector("[aria-selected=true] b").textContent === "Truck 299"`)
	b.wait(`document.querySelector("#grid").getAttribute("aria-activedescendant") === document.querySelector(".line[aria-selected=true]").id`)
	b.press("PageUp")
	b.press("Home")
	b.wait(`document.querySelector(".line[aria-selected=true] b").textContent === "Truck 0"`)
	quiet(t, b, url)
}
