package view

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// TestCrowds checks that one disc stands for many marks if there is no room for them, that
// it opens with a click, and that a chosen device is found in a crowd.
func TestCrowds(t *testing.T) {
	source := &plain{why: func(string) ([]byte, bool) { return []byte(`{"plan":"wait"}`), true }}
	for i := range 600 {
		d := truck(fmt.Sprint(i), 4.6+float32(i%25)*0.0004)
		d.Lon = -74.1 + float32(i/25)*0.0004
		source.put(d)
	}
	far := truck("<b>far</b>", 11, "SOSButton")
	source.put(far)
	where := serve(t, New(Options{Source: source, Log: quietLog}))
	b := chromium(t)
	b.look(1440, 900, "light")
	b.open(where + "/")
	b.wait(`document.querySelector("#legend").textContent.includes("600")`)
	// The fit leaves the one that is far away out of sight.
	b.eval(`for (let i = 0; i < 6; i++) document.querySelector("#zoom-out").click()`)
	b.point("#marks", "#marks.over")
	b.wait(`/^\d+ devices\nMoving \d+$/.test(document.querySelector("#tip").textContent)`)
	b.shoot("crowd")
	length := func() string { return b.eval(`document.querySelector("#scale-text").textContent`) }
	before := length()
	b.click()
	b.wait(fmt.Sprintf(`document.querySelector("#scale-text").textContent !== %s`, before))
	if b.eval(`document.querySelector("#why").hidden`) != "true" {
		t.Error("a click on a crowd chose a device")
	}
	b.eval(`document.querySelector("#zoom-fit").click()`)
	b.eval(`document.querySelector("#grid").focus()`)
	b.press("End")
	b.press("Enter")
	b.wait(`document.querySelector("#why-name").textContent === "Truck 599"`)
	b.press("f")
	b.point("#marks", "#marks.over")
	b.wait(`/^Truck \d+\nMoving/.test(document.querySelector("#tip").textContent)`)
	b.shoot("crowd-found")
	b.eval(`[...document.querySelectorAll("#stats button")].find((x) => x.textContent.includes("alerts")).click()`)
	b.wait(`document.querySelector("#shown").textContent === "1 of 601 devices" && document.querySelector("#only").value === "alert"`)
	quiet(t, b, where)
}

// TestSmooth scrolls, sorts, filters and moves a fleet of 10,000 while it drives
// about, and counts the delays of the page. The bound is wide: it
// catches code that is slow by design, on a machine with other load.
func TestSmooth(t *testing.T) {
	where := serve(t, busy(t, 10_000))
	b := chromium(t)
	b.look(1440, 900, "light")
	b.open(where + "/")
	b.wait(`document.querySelector("#shown").textContent === "10,000 devices"`)
	frame := `await new Promise((ok) => requestAnimationFrame(ok));`
	tests := []struct{ name, script string }{
		{"watching", `await new Promise((ok) => setTimeout(ok, 3500));`},
		{"scrolling", `const g = document.querySelector("#grid"); for (let i = 0; i < 60; i++) { g.scrollTop = (i * 7919) % 60 / 60 * g.scrollHeight; ` + frame + ` }`},
		{"sorting", `for (let i = 0; i < 10; i++) { document.querySelectorAll("#grid-head button")[i % 5].click(); ` + frame + ` }`},
		{"filtering", `const f = document.querySelector("#filter"); for (const w of ["t", "tr", "truck", "truck 1", "no such", "1", ""]) { f.value = w; f.dispatchEvent(new Event("input")); ` + frame + ` }`},
		{"zooming", `const c = document.querySelector("#marks"); for (let i = 0; i < 60; i++) { c.dispatchEvent(new WheelEvent("wheel", { deltaY: i < 30 ? -40 : 40, clientX: 300, clientY: 400, cancelable: true })); ` + frame + ` }`},
		{"panning", `const c = document.querySelector("#marks"); for (let i = 0; i < 60; i++) { c.dispatchEvent(new KeyboardEvent("keydown", { key: i % 20 < 10 ? "ArrowLeft" : "ArrowDown" })); ` + frame + ` }`},
	}
	for _, tt := range tests {
		got := b.eval(`(async () => {
			const long = [];
			const watch = new PerformanceObserver((l) => { for (const e of l.getEntries()) long.push(Math.round(e.duration)); });
			watch.observe({ type: "longtask" });
			` + tt.script + `
			await new Promise((ok) => setTimeout(ok, 50));
			watch.disconnect();
			return long.sort((a, b) => b - a);
		})()`)
		var long []int
		if err := json.Unmarshal([]byte(got), &long); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: tasks above 50 ms: %v", tt.name, long)
		if len(long) > 0 && long[0] > 800 {
			t.Errorf("%s holds up the page for %d ms", tt.name, long[0])
		}
	}
	quiet(t, b, where)
}

// TestMemoryOfAPage gives the page the frames of minutes within seconds, and wants
// as much memory and as many elements after the second half as after the first.
func TestMemoryOfAPage(t *testing.T) {
	v := busy(t, 500)
	where := serve(t, v)
	b := chromium(t)
	b.look(1440, 900, "dark")
	b.open(where + "/")
	b.wait(`document.querySelector("#shown").textContent === "500 devices"`)
	b.eval(`document.querySelector(".line").click()`)
	b.wait(`document.querySelectorAll("#why-decisions li").length === 8`)
	storm := func() (heap, nodes float64) {
		b.eval(`(async () => {
			for (let i = 0; i < 60; i++) {
				document.querySelectorAll("#grid-head button")[i % 5].click();
				document.querySelector("#tab-" + ["alerts", "health", "fleet"][i % 3]).click();
				await new Promise((ok) => setTimeout(ok, 50));
			}
			document.querySelector("#tab-fleet").click();
			document.querySelector(".line").click();
		})()`)
		b.do("HeapProfiler.collectGarbage", nil)
		var h struct{ UsedSize float64 }
		b.call(b.session, "Runtime.getHeapUsage", nil, &h)
		n, err := strconv.ParseFloat(b.eval(`document.querySelectorAll("*").length`), 64)
		if err != nil {
			t.Fatal(err)
		}
		return h.UsedSize, n
	}
	storm() // to make the objects that are made once
	heap, nodes := storm()
	heap2, nodes2 := storm()
	t.Logf("heap %.2f then %.2f MB, %g then %g elements", heap/1e6, heap2/1e6, nodes, nodes2)
	if heap2 > heap*1.25+512<<10 {
		t.Errorf("heap grew from %.2f to %.2f MB", heap/1e6, heap2/1e6)
	}
	if nodes2 > nodes+40 {
		t.Errorf("elements grew from %g to %g", nodes, nodes2)
	}
	quiet(t, b, where)
}

// TestMotion checks that a user who prefers no motion gets none, and others a flight of a third of a second.
func TestMotion(t *testing.T) {
	source := &plain{}
	source.put(truck("a", 4), truck("b", 5))
	where := serve(t, New(Options{Source: source, Log: quietLog}))
	b := chromium(t)
	b.look(1440, 900, "dark")
	b.open(where + "/")
	b.wait(`document.querySelector("#scale-text").textContent === "20 km"`)
	script := `(async () => {
		const seen = new Set(), ruler = document.querySelector("#scale-line");
		document.querySelector("#zoom-%s").click();
		for (const end = performance.now() + 700; performance.now() < end;) {
			await new Promise((ok) => requestAnimationFrame(ok));
			seen.add(ruler.style.width + document.querySelector("#scale-text").textContent);
		}
		return seen.size;
	})()`
	if got := b.eval(fmt.Sprintf(script, "in")); strings.Trim(got, "12") != "" {
		t.Errorf("%s steps of zoom where no motion is wanted, want one", got)
	}
	b.do("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-reduced-motion", "value": "no-preference"}}})
	if got, err := strconv.Atoi(b.eval(fmt.Sprintf(script, "out"))); err != nil || got < 3 {
		t.Errorf("%d steps of zoom where motion is welcome, want more: %v", got, err)
	}
}
