package view

import (
	"encoding/json"
	"fmt"
	"sort"
	"testing"
)

func TestScratchProfile(t *testing.T) {
	n := 10000
	url := serve(t, busy(t, n))
	b := chromium(t)
	b.look(1440, 900, "dark")
	b.do("Page.navigate", map[string]any{"url": url + "/"})
	b.wait(fmt.Sprintf(`document.querySelector("#feed").textContent.includes("live") && Number(document.querySelector("#grid").getAttribute("aria-rowcount")) === %d`, n+1))
	b.do("Profiler.enable", nil)
	for _, what := range []string{
		`new Promise(ok => setTimeout(ok, 5000))`,
		`new Promise(ok => { const s=document.querySelector("#scroll"); let frames=0; const start=performance.now();
		 const f=(now)=>{ frames++; s.scrollTop+=400; if (now-start<4000) requestAnimationFrame(f); else ok({frames}); }; requestAnimationFrame(f);})`,
		`new Promise(ok => { const s=document.querySelector("#marks"); let frames=0; const start=performance.now();
		 const f=(now)=>{ frames++; s.dispatchEvent(new KeyboardEvent("keydown",{key: frames%40<20?"ArrowLeft":"ArrowRight"})); if (now-start<4000) requestAnimationFrame(f); else ok({frames}); }; requestAnimationFrame(f);})`,
	} {
		b.do("Profiler.start", nil)
		t.Log(b.eval(what))
		var p struct {
			Profile struct {
				Nodes []struct {
					ID        int
					CallFrame struct {
						FunctionName, URL string
						LineNumber        int
					}
				}
				Samples    []int
				TimeDeltas []int
			}
		}
		b.call(b.session, "Profiler.stop", nil, &p)
		self := map[string]int{}
		names := map[int]string{}
		for _, n := range p.Profile.Nodes {
			names[n.ID] = fmt.Sprintf("%s %s:%d", n.CallFrame.FunctionName, n.CallFrame.URL[max(0, len(n.CallFrame.URL)-12):], n.CallFrame.LineNumber)
		}
		for i, s := range p.Profile.Samples {
			self[names[s]] += p.Profile.TimeDeltas[i]
		}
		keys := []string{}
		for k := range self {
			keys = append(keys, k)
		}
		sort.Slice(keys, func(i, j int) bool { return self[keys[i]] > self[keys[j]] })
		for _, k := range keys[:min(14, len(keys))] {
			t.Logf("%8.1f ms %s", float64(self[k])/1000, k)
		}
	}
	_ = json.Marshal
}
