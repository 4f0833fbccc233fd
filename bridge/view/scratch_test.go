package view

import (
	"fmt"
	"testing"
)

func TestScratch(t *testing.T) {
	for _, n := range []int{10000} {
		url := serve(t, busy(t, n))
		b := chromium(t)
		for _, s := range []struct{ w, h int }{{1920, 1080}, {1100, 700}, {390, 844}} {
			b.look(s.w, s.h, "dark")
			b.do("Page.navigate", map[string]any{"url": url + "/"})
			b.wait(fmt.Sprintf(`document.querySelector("#feed").textContent.includes("live") && Number(document.querySelector("#grid").getAttribute("aria-rowcount")) === %d`, n+1))
			b.wait(`document.querySelector("#scale-text").textContent.includes("m")`)
			b.shoot(fmt.Sprintf("x-%d", s.w))
		}
		b.look(1440, 900, "light")
		t.Log(b.eval(`new Promise(ok => { const long=[]; new PerformanceObserver(l=>l.getEntries().forEach(e=>long.push(Math.round(e.duration)))).observe({entryTypes:["longtask"]}); 
		 const s=document.querySelector("#scroll"); let n=0, worst=0, last=performance.now(), frames=0; const start=last;
		 const f=(now)=>{ worst=Math.max(worst, now-last); last=now; frames++; s.scrollTop+=400; if (now-start<4000) requestAnimationFrame(f); else ok({long,worst,frames}); }; requestAnimationFrame(f);})`))
		t.Log(b.eval(`new Promise(ok => { const long=[]; new PerformanceObserver(l=>l.getEntries().forEach(e=>long.push(Math.round(e.duration)))).observe({entryTypes:["longtask"]}); 
		 const s=document.querySelector("#marks"); s.focus(); let n=0, worst=0, last=performance.now(), frames=0; const start=last;
		 const f=(now)=>{ worst=Math.max(worst, now-last); last=now; frames++; s.dispatchEvent(new KeyboardEvent("keydown",{key: frames%40<20?"ArrowLeft":"ArrowRight"})); if (now-start<4000) requestAnimationFrame(f); else ok({long,worst,frames}); }; requestAnimationFrame(f);})`))
		quiet(t, b, url)
	}
}
