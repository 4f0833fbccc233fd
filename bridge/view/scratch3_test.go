package view

import "testing"

func TestScratchMicro(t *testing.T) {
	b := chromium(t)
	b.look(1440, 900, "dark")
	for range 2 {
		for _, body := range []string{
			`for (let i=0;i<N;i++) g.drawImage(bm, (i%32)*17,0,17,17, xs[i], ys[i], 17,17);`,
			`for (let k=0;k<N;k+=200){ g.beginPath(); for (let i=k;i<k+200;i++){ g.moveTo(xs[i],ys[i]); g.lineTo(xs[i]+8,ys[i]+11); g.lineTo(xs[i]-8,ys[i]+11); g.closePath(); } g.stroke(); g.fill(); }`,
			`for (let k=0;k<N;k+=N){ g.beginPath(); for (let i=k;i<k+N;i++){ g.moveTo(xs[i],ys[i]); g.lineTo(xs[i]+8,ys[i]+11); g.lineTo(xs[i]-8,ys[i]+11); g.closePath(); } g.fill(); }`,
			`px.fill(0); for (let i=0;i<N;i++){ const sx=(i%32)*17; let o=ys[i]*800+xs[i]; for (let y=0;y<17;y++,o+=800-17) for (let x=0;x<17;x++,o++){ const p=sp[y*544+sx+x]; if(p>>>24===255) px[o]=p; else if (p>>>24) { const q=px[o], a=p>>>24, na=255-a; px[o]=0xff000000|(((p&255)*a+(q&255)*na)>>8)|((((p>>8)&255)*a+((q>>8)&255)*na)>>8<<8)|((((p>>16)&255)*a+((q>>16)&255)*na)>>8<<16);} } } og.putImageData(im,0,0); g.drawImage(oc,0,0);`,
		} {
			t.Log(b.eval(`new Promise(ok=>{ document.body.replaceChildren(); const N=6000; const c=document.createElement("canvas"); c.width=800;c.height=650; document.body.append(c); const g=c.getContext("2d");
			const s=new OffscreenCanvas(32*17,17); const q=s.getContext("2d"); for(let i=0;i<32;i++){q.fillStyle="#4c9"; q.beginPath(); q.arc(i*17+8,8,6,0,7); q.fill();} const sd=q.getImageData(0,0,544,17); const sp=new Uint32Array(sd.data.buffer); const bm=s.transferToImageBitmap();
			const oc=new OffscreenCanvas(800,650), og=oc.getContext("2d",{willReadFrequently:true}), im=og.createImageData(800,650), px=new Uint32Array(im.data.buffer);
			const xs=Array.from({length:N},()=>Math.floor(20+Math.random()*740)), ys=Array.from({length:N},()=>Math.floor(20+Math.random()*600)); let js=0, n=0; const start=performance.now();
			const f=()=>{ g.clearRect(0,0,800,650); const t=performance.now(); `+body+` js+=performance.now()-t; if (++n<15) requestAnimationFrame(f); else ok({frame:(performance.now()-start)/15, js:js/15}); }; requestAnimationFrame(f); })`))
		}
	}
}
