package view

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
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

// quiet fails where the console had anything to say, or a request went elsewhere.
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
			url := serve(t, busy(t, n))
			b := chromium(t)
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
			b.press("ArrowDown")
			b.press("ArrowDown")
			b.press("Enter")
			b.wait(`document.querySelectorAll("#why-decisions li").length === 8`)
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
