package ops

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the page's template and style
	"encoding/base64"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"time"
)

// Count is one number that the plain status page shows.
type Count struct {
	Name  string
	Value string
}

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS string

// statusPage is the page if there is no live view: the state of each part, some
// numbers, and links. It needs no script.
type statusPage struct {
	options  Options
	template *template.Template
	policy   string
}

// partRow and heartRow are lines of the page.
type (
	partRow struct {
		Name string
		PartStatus
	}
	heartRow struct {
		Name string
		HeartStatus
	}
)

func newStatusPage(o Options) *statusPage {
	digest := sha256.Sum256([]byte(pageCSS))
	return &statusPage{
		options:  o,
		template: template.Must(template.New("page").Parse(pageHTML)),
		// The style is allowed by its digest, so a name or a reason cannot inject one.
		policy: "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(digest[:]) +
			"'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
	}
}

// ServeHTTP writes the page, which reloads itself every few seconds.
func (p *statusPage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/" {
		http.NotFound(w, r)
		return
	}
	ready, parts := p.options.Health.Ready()
	live, hearts := p.options.Health.Live()
	data := struct {
		Style       template.CSS
		Version     string
		Now         string
		Ready, Live bool
		Pprof       bool
		Parts       []partRow
		Hearts      []heartRow
		Counts      []Count
	}{
		Style: template.CSS(pageCSS), Version: p.options.Version, Now: time.Now().UTC().Format(time.DateTime),
		Ready: ready, Live: live, Pprof: p.options.Pprof,
	}
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		data.Parts = append(data.Parts, partRow{name, parts[name]})
	}
	for _, name := range slices.Sorted(maps.Keys(hearts)) {
		data.Hearts = append(data.Hearts, heartRow{name, hearts[name]})
	}
	if p.options.Counts != nil {
		data.Counts = p.options.Counts()
	}
	var page bytes.Buffer
	if err := p.template.Execute(&page, data); err != nil {
		http.Error(w, "could not render the page", http.StatusInternalServerError)
		p.options.Log.Error("could not render the status page", "err", err)
		return
	}
	w.Header().Set("Content-Security-Policy", p.policy)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(page.Bytes()) // the client may have disconnected
}
