package view

import (
	"os"
	"testing"
)

// TestAccessible runs axe-core over every part of the page, in both colour schemes
// and on a phone. VIEW_AXE names its axe.min.js, of the npm package of that name.
func TestAccessible(t *testing.T) {
	path := os.Getenv("VIEW_AXE")
	if path == "" {
		t.Skip("VIEW_AXE names no axe.min.js")
	}
	axe, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	where := serve(t, busy(t, 300))
	b := chromium(t)
	b.look(1440, 900, "light")
	b.open(where + "/")
	b.wait(`document.querySelectorAll(".line:not([hidden])").length > 10 && document.querySelector("#ready").textContent.includes("Ready")`)
	b.eval(string(axe) + ";1")
	views := []struct{ name, script string }{
		{"fleet", `document.querySelector("#grid").focus()`},
		{"why", `document.querySelector(".line").click()`},
		{"alerts", `document.querySelector("#tab-alerts").click()`},
		{"health", `document.querySelector("#tab-health").click()`},
		{"strip", `document.querySelector("#strip-what").textContent = "No connection"; document.querySelector("#strip").hidden = false`},
	}
	for _, scheme := range []string{"light", "dark"} {
		for _, width := range []int{1440, 390} {
			b.look(width, 900, scheme)
			b.eval(`document.querySelector("#tab-fleet").click()`)
			for _, v := range views {
				b.eval(v.script)
				found := b.eval(`axe.run(document).then((r) => r.violations.map((v) => v.impact + " " + v.id + ": " + v.nodes.map((n) => n.target).join(" ")).join("; "))`)
				if found != `""` {
					t.Errorf("%s, %s, %d pixels: %s", v.name, scheme, width, found)
				}
			}
		}
	}
}
