package view

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"mime"
	"net/http"
	"path"
	"strings"
	"sync"
)

//go:embed assets
var files embed.FS

// policy lets the page load only its own files. Scripts cannot create elements from
// strings.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"frame-ancestors 'none'; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// asset is one file of the page.
type asset struct {
	path   string
	kind   string
	plain  []byte
	packed []byte // the same with gzip
	tag    string
}

// assets returns the page's files by their paths. They are compressed once.
var assets = sync.OnceValue(func() map[string]*asset {
	list := make(map[string]*asset)
	entries, err := files.ReadDir("assets")
	if err != nil { // they are in the binary
		panic(err)
	}
	for _, e := range entries {
		data, err := files.ReadFile("assets/" + e.Name())
		if err != nil {
			panic(err)
		}
		a := newAsset("/view/"+e.Name(), data)
		if e.Name() == "index.html" {
			a.path = "/{$}"
		}
		list[a.path] = a
	}
	return list
})

func newAsset(name string, data []byte) *asset {
	kind := map[string]string{".js": "text/javascript; charset=utf-8", ".bin": "application/octet-stream"}[path.Ext(name)]
	if kind == "" { // scripts are above, because the system's table may be wrong for them
		kind = mime.TypeByExtension(path.Ext(name))
	}
	digest := sha256.Sum256(data)
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, _ = w.Write(data) // a buffer takes everything
	_ = w.Close()
	return &asset{
		path: name, kind: kind, plain: data, packed: packed.Bytes(),
		tag: `"` + base64.RawURLEncoding.EncodeToString(digest[:12]) + `"`,
	}
}

// ServeHTTP writes the file, or 304 if the browser has it. Browsers revalidate each
// time, because files of two versions do not work together.
func (a *asset) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("Content-Type", a.kind)
	h.Set("Cache-Control", "no-cache")
	h.Set("Vary", "Accept-Encoding")
	h.Set("ETag", a.tag)
	if strings.Contains(r.Header.Get("If-None-Match"), a.tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	body := a.plain
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") && len(a.packed) < len(body) {
		h.Set("Content-Encoding", "gzip")
		body = a.packed
	}
	_, _ = w.Write(body) // the client may have disconnected
}
