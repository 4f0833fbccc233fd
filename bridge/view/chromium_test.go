package view

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"
)

// browser is a headless Chromium that is spoken to in the DevTools protocol over
// a pipe: https://chromedevtools.github.io/devtools-protocol/.
type browser struct {
	tb      testing.TB
	cmd     *exec.Cmd
	in      io.Writer
	session string
	x, y    float64 // of the pointer

	mu      sync.Mutex
	id      int
	waiting map[int]chan answer
	trouble []string // messages of the console, errors and warnings only
	asked   []string // URLs of requests
}

type answer struct {
	Result json.RawMessage
	Error  *struct{ Message string }
}

// message is anything the browser says.
type message struct {
	answer
	ID     int
	Method string
	Params json.RawMessage
}

// chromium starts the browser, or skips the test if there is none.
func chromium(tb testing.TB) *browser {
	tb.Helper()
	if testing.Short() {
		tb.Skip("-short: no browser")
	}
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		tb.Skip("no Chromium on this machine: install it to test the page in a browser")
	}
	ours, itsOut := pipe(tb)
	itsIn, out := pipe(tb)
	args := []string{
		"--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars", "--disable-extensions",
		"--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe", "--user-data-dir=" + tb.TempDir(), "about:blank",
	}
	b := &browser{tb: tb, in: out, waiting: make(map[int]chan answer), cmd: exec.CommandContext(context.WithoutCancel(tb.Context()), path, args...)}
	b.cmd.ExtraFiles = []*os.File{itsIn, itsOut} // it reads from 3 and writes to 4
	if err := b.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	_ = itsIn.Close()
	_ = itsOut.Close()
	read := make(chan struct{})
	go func() {
		defer close(read)
		b.read(ours)
	}()
	tb.Cleanup(func() {
		_ = b.try("", "Browser.close", nil, nil)
		_ = out.Close()
		ended := time.AfterFunc(10*time.Second, func() { _ = b.cmd.Process.Kill() })
		_ = b.cmd.Wait() // its status after a close says nothing
		ended.Stop()
		_ = ours.Close()
		<-read
	})
	b.attach()
	return b
}

func pipe(tb testing.TB) (r, w *os.File) {
	tb.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	return r, w
}

// attach takes the first page.
func (b *browser) attach() {
	b.tb.Helper()
	var targets struct {
		TargetInfos []struct{ TargetID, Type string }
	}
	b.call("", "Target.getTargets", nil, &targets)
	for _, t := range targets.TargetInfos {
		if t.Type == "page" {
			var s struct{ SessionID string }
			b.call("", "Target.attachToTarget", map[string]any{"targetId": t.TargetID, "flatten": true}, &s)
			b.session = s.SessionID
		}
	}
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		b.do(domain+".enable", nil)
	}
}

func (b *browser) read(r io.Reader) {
	lines := bufio.NewReaderSize(r, 1<<20)
	for {
		line, err := lines.ReadBytes(0)
		if err != nil {
			break
		}
		var m message
		if json.Unmarshal(bytes.TrimSuffix(line, []byte{0}), &m) == nil {
			b.heard(m)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, c := range b.waiting {
		delete(b.waiting, id)
		close(c)
	}
}

func (b *browser) heard(m message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if m.ID != 0 {
		if c := b.waiting[m.ID]; c != nil {
			delete(b.waiting, m.ID)
			c <- m.answer
		}
		return
	}
	var p struct {
		Type  string
		Entry struct{ Level, Text, URL string }
		Args  []struct {
			Value       any
			Description string
		}
		ExceptionDetails struct {
			Text      string
			Exception struct{ Description string }
		}
		Request struct{ URL string }
	}
	if json.Unmarshal(m.Params, &p) != nil {
		return
	}
	switch m.Method {
	case "Runtime.exceptionThrown":
		b.trouble = append(b.trouble, "exception: "+p.ExceptionDetails.Text+" "+p.ExceptionDetails.Exception.Description)
	case "Runtime.consoleAPICalled":
		b.trouble = append(b.trouble, fmt.Sprintf("console.%s: %v", p.Type, p.Args))
	case "Log.entryAdded":
		b.trouble = append(b.trouble, p.Entry.Level+": "+p.Entry.Text+" "+p.Entry.URL)
	case "Network.requestWillBeSent":
		b.asked = append(b.asked, p.Request.URL)
	}
}

// try calls a method and waits for its answer.
func (b *browser) try(session, method string, params, result any) error {
	b.mu.Lock()
	b.id++
	id, c := b.id, make(chan answer, 1)
	b.waiting[id] = c
	request := map[string]any{"id": id, "method": method}
	if params != nil {
		request["params"] = params
	}
	if session != "" {
		request["sessionId"] = session
	}
	data, err := json.Marshal(request)
	if err == nil {
		_, err = b.in.Write(append(data, 0))
	}
	b.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case a, ok := <-c:
		switch {
		case !ok:
			return errors.New("the browser has gone")
		case a.Error != nil:
			return fmt.Errorf("%s: %s", method, a.Error.Message)
		case result != nil:
			return json.Unmarshal(a.Result, result)
		}
		return nil
	case <-time.After(30 * time.Second):
		return fmt.Errorf("%s: no answer", method)
	}
}

func (b *browser) call(session, method string, params, result any) {
	b.tb.Helper()
	if err := b.try(session, method, params, result); err != nil {
		b.tb.Fatal(err)
	}
}

func (b *browser) do(method string, params any) {
	b.tb.Helper()
	b.call(b.session, method, params, nil)
}

// eval gives the value of an expression, which may be a promise, as JSON.
func (b *browser) eval(expression string) string {
	b.tb.Helper()
	var r struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct {
			Exception struct{ Description string }
		}
	}
	b.call(b.session, "Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true}, &r)
	if r.ExceptionDetails != nil {
		b.tb.Fatalf("%s: %s", expression, r.ExceptionDetails.Exception.Description)
	}
	return string(r.Result.Value)
}

// wait waits until an expression is true.
func (b *browser) wait(expression string) {
	b.tb.Helper()
	script := `new Promise((ok, no) => { const end = Date.now() + 20000; const look = () => {
		let is = false; try { is = Boolean(` + expression + `); } catch {}
		if (is) ok(true); else if (Date.now() > end) ok(false); else setTimeout(look, 30); }; look(); })`
	if got := b.eval(script); got != "true" {
		b.tb.Fatalf("not within 20 s: %s\nthe page says: %s\nconsole: %q", expression, b.eval("document.body?.innerText.slice(0, 3000)"), b.troubles())
	}
}

func (b *browser) troubles() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.trouble...)
}

func (b *browser) requests() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.asked...)
}

// look sets the window's size and the user's preferences.
func (b *browser) look(width, height int, scheme string) {
	b.tb.Helper()
	b.do("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false})
	b.do("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{
		{"name": "prefers-color-scheme", "value": scheme}, {"name": "prefers-reduced-motion", "value": "reduce"},
	}})
}

// press presses one key.
func (b *browser) press(key string) {
	b.tb.Helper()
	p := map[string]any{"type": "keyDown", "key": key}
	if len(key) == 1 {
		p["text"] = key
	}
	b.do("Input.dispatchKeyEvent", p)
	b.do("Input.dispatchKeyEvent", map[string]any{"type": "keyUp", "key": key})
}

// point moves the pointer to the middle of an element, and up and down from there
// until something matches.
func (b *browser) point(element, until string) {
	b.tb.Helper()
	x, y := b.middle(element)
	for dy := -40.0; dy <= 40; dy += 4 {
		b.x, b.y = x, y+dy
		b.do("Input.dispatchMouseEvent", map[string]any{"type": "mouseMoved", "x": b.x, "y": b.y})
		if b.eval(fmt.Sprintf("document.querySelector(%q) !== null", until)) == "true" {
			return
		}
	}
	b.tb.Fatalf("nothing about the middle of %s makes %s", element, until)
}

// click presses the pointer's button at its place.
func (b *browser) click() {
	b.tb.Helper()
	for _, kind := range []string{"mousePressed", "mouseReleased"} {
		b.do("Input.dispatchMouseEvent", map[string]any{"type": kind, "x": b.x, "y": b.y, "button": "left", "clickCount": 1})
	}
}

func (b *browser) middle(element string) (x, y float64) {
	b.tb.Helper()
	var at struct{ X, Y float64 }
	data := b.eval(fmt.Sprintf(`(() => { const r = document.querySelector(%q).getBoundingClientRect(); return { x: r.x + r.width / 2, y: r.y + r.height / 2 }; })()`, element))
	if err := json.Unmarshal([]byte(data), &at); err != nil {
		b.tb.Fatal(err)
	}
	return at.X, at.Y
}

// shoot writes a picture of the page if VIEW_SHOTS names a folder.
func (b *browser) shoot(name string) {
	b.tb.Helper()
	folder := os.Getenv("VIEW_SHOTS")
	if folder == "" {
		return
	}
	// Two frames, so that the page is drawn.
	b.eval("new Promise((ok) => requestAnimationFrame(() => requestAnimationFrame(ok)))")
	var shot struct{ Data string }
	b.call(b.session, "Page.captureScreenshot", map[string]any{"format": "png"}, &shot)
	data, err := base64.StdEncoding.DecodeString(shot.Data)
	if err == nil {
		err = os.WriteFile(folder+"/"+name+".png", data, 0o644)
	}
	if err != nil {
		b.tb.Fatal(err)
	}
}
