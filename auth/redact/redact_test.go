package redact_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io/fs"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"plaspy-bridge/auth/redact"
)

const (
	key   = "q1+w2=e3/r4+t5&é<y>"
	token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1c2VyIiwic2VjcmV0IjoiYWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXoifQ.c2lnbmF0dXJlLXNpZ25hdHVyZQ"
)

// eachRune writes every character of s in its own way.
func eachRune(s string, f func(rune) string) string {
	var b strings.Builder
	for _, r := range s {
		b.WriteString(f(r))
	}
	return b.String()
}

func quoted(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// spellings are ways to write a secret that some server, proxy or library uses.
var spellings = map[string]func(string) string{
	"as it is":   func(s string) string { return s },
	"Go's JSON":  quoted,
	"PHP's JSON": func(s string) string { return strings.ReplaceAll(s, "/", `\/`) },
	"System.Text.Json": func(s string) string {
		return strings.NewReplacer("+", `\u002B`, "&", `\u0026`, "é", `\u00E9`).Replace(s)
	},
	"lower-case escapes":  func(s string) string { return eachRune(s, func(r rune) string { return fmt.Sprintf(`\u%04x`, r) }) },
	"a JSON text in JSON": func(s string) string { return quoted(quoted(s)) },
	"query":               url.QueryEscape,
	"path":                url.PathEscape,
	"lower-case percent": func(s string) string {
		return regexp.MustCompile(`%..`).ReplaceAllStringFunc(url.QueryEscape(s), strings.ToLower)
	},
	"HTML":                 html.EscapeString,
	"HTML by number":       func(s string) string { return eachRune(s, func(r rune) string { return fmt.Sprintf("&#%d;", r) }) },
	"HTML by hex":          func(s string) string { return eachRune(s, func(r rune) string { return fmt.Sprintf("&#x%X;", r) }) },
	"percent within JSON":  func(s string) string { return quoted(url.QueryEscape(s)) },
	"Basic":                func(s string) string { return base64.StdEncoding.EncodeToString([]byte("user:" + s)) },
	"Basic, longer user":   func(s string) string { return base64.StdEncoding.EncodeToString([]byte("user1:" + s)) },
	"Basic, longest user":  func(s string) string { return base64.StdEncoding.EncodeToString([]byte("user12:" + s + "x")) },
	"base64 for URLs":      func(s string) string { return base64.URLEncoding.EncodeToString([]byte(s)) },
	"base64 escaped again": func(s string) string { return url.QueryEscape(base64.StdEncoding.EncodeToString([]byte("u:" + s))) },
}

// shares returns a run of 12 characters that text has in common with secret, as it is or decoded.
func shares(text, secret string) string {
	views := []string{text, html.UnescapeString(text)}
	if s, err := url.PathUnescape(text); err == nil {
		views = append(views, s)
	}
	var s string
	if json.Unmarshal([]byte(`"`+text+`"`), &s) == nil {
		views = append(views, s)
	}
	for _, view := range views {
		for i := 0; i+12 <= len(secret); i++ {
			if strings.Contains(view, secret[i:i+12]) {
				return secret[i : i+12]
			}
		}
	}
	return ""
}

func TestEverySpellingIsFound(t *testing.T) {
	for name, spell := range spellings {
		t.Run(name, func(t *testing.T) {
			for _, secret := range []string{key, token, "pass\\word%41\"1"} {
				if secret == token && (strings.Contains(name, "Basic") || strings.Contains(name, "base64")) {
					continue // bearer tokens are not sent that way
				}
				s := redact.New(secret)
				text := "before " + spell(secret) + " behind"
				got := s.Text(text, 1000)
				want := "before [redacted] behind"
				if strings.HasPrefix(spell(secret), `"`) && !strings.HasPrefix(name, "a JSON") {
					want = `before "[redacted]" behind`
				}
				switch name {
				case "Basic", "Basic, longer user", "Basic, longest user", "base64 for URLs", "base64 escaped again", "a JSON text in JSON":
					// The characters at the edges belong to the text beside the secret.
					if len(got) > 50 || !strings.Contains(got, redact.Placeholder) {
						t.Errorf("%q: got %q", text, got)
					}
				default:
					if got != want {
						t.Errorf("%q: got %q, want %q", text, got, want)
					}
				}
			}
		})
	}
}

func TestPartsOfSecrets(t *testing.T) {
	s := redact.New(token, "short-one")
	for _, tc := range []struct{ name, text, want string }{
		{"beginning", "token " + token[:30] + "...", "token [redacted]..."},
		{"end", "..." + token[40:], "...[redacted]"},
		{"middle", token[13:25], "[redacted]"},
		{"too little to be of use", token[13:24], token[13:24]},
		{"a short secret as a whole", "x short-one y", "x [redacted] y"},
		{"part of a short secret", "short-on", "short-on"},
		{"twice", token + "," + token, "[redacted],[redacted]"},
		{"side by side", token + token, "[redacted]"},
		{"broken in two", token[:40] + " " + token[40:], "[redacted] [redacted]"},
		{"none", "no secret here", "no secret here"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := s.Text(tc.text, 1000); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// A text may be cut at any character, by its sender or by the reader: no part of a secret remains.
func TestCutsLeaveNothing(t *testing.T) {
	s := redact.New(key, token)
	for _, secret := range []string{key, token} {
		for _, spell := range spellings {
			text := spell(secret)
			for at := 0; at <= len(text); at += 1 + len(text)/23 {
				for _, padding := range []int{0, 1000 - at, 64<<10 - at} {
					long := strings.Repeat(" ", max(padding, 0)) + text
					if run := shares(s.Text(long, 1000), secret); run != "" {
						t.Fatalf("cut after %d of %q: %q is left", at, text, run)
					}
				}
				if run := shares(s.Text(text[:at], 1000), secret); run != "" {
					t.Fatalf("%q: %q is left", text[:at], run)
				}
			}
		}
	}
}

func TestSecretWithSpacesInABrokenText(t *testing.T) {
	s := redact.New("correct horse battery staple")
	if got := s.Text("correct\n horse\tbattery\u202e staple", 100); got != redact.Placeholder {
		t.Errorf("got %q", got)
	}
}

func TestSecretsAcrossWindows(t *testing.T) {
	s := redact.New(key, token, "short-one")
	for _, secret := range []string{key, token, "short-one"} {
		for _, spell := range []func(string) string{spellings["as it is"], spellings["lower-case escapes"], spellings["HTML by number"]} {
			for edge := 1<<16 - 2000; edge < 1<<16+100; edge += 337 {
				b := bytes.Repeat([]byte("x"), 140_000)
				copy(b[edge:], spell(secret))
				got := s.Bytes(b)
				if want := string(b[:edge]) + redact.Placeholder + string(b[edge+len(spell(secret)):]); string(got) != want {
					t.Fatalf("%q at %d is not replaced as a whole", spell(secret), edge)
				}
			}
		}
	}
}

func TestBytesKeepsJSON(t *testing.T) {
	s := redact.New(key)
	in := []byte(`{"success": true, "note": "` + strings.Trim(quoted("a "+key+" b"), `"`) + `", "n": 1.50}`)
	before := bytes.Clone(in)
	if got := string(s.Bytes(in)); got != `{"success": true, "note": "a [redacted] b", "n": 1.50}` || !json.Valid([]byte(got)) {
		t.Errorf("got %s", got)
	}
	if !bytes.Equal(in, before) {
		t.Error("the input was changed")
	}
	clean := []byte(`{"a": "\u002B %41 &amp;"}`)
	if got := s.Bytes(clean); &got[0] != &clean[0] {
		t.Error("a text without secrets was copied")
	}
}

func TestSetRemembersTheNewest(t *testing.T) {
	s := redact.New("fixed-secret-0123")
	s.Add("key-0123456789")
	for i := range 100 {
		s.Add("key-0123456789") // as with each token request
		s.Add(fmt.Sprintf("token-%04d-%04d", i, i))
	}
	got := s.Text("fixed-secret-0123 key-0123456789 token-0099-0099 token-0090-0090", 200)
	if want := "[redacted] [redacted] [redacted] [redacted]"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := s.Text("token-0001-0001", 200); got != "token-0001-0001" {
		t.Errorf("got %q: the set grows for ever", got)
	}
	var zero redact.Secrets
	if got := zero.Text("a\x1b[2J b", 100); got != "a [2J b" {
		t.Errorf("got %q", got)
	}
	zero.Add("ab")
	if got := zero.Text("ab abab", 100); got != "ab abab" {
		t.Errorf("got %q: a secret of two characters is in every text", got)
	}
}

func TestConcurrentUse(t *testing.T) {
	var s redact.Secrets
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			secret := fmt.Sprintf("secret-number-%d-of-eight", i)
			for range 50 {
				s.Add(secret)
				if got := s.Text("x "+secret, 100); got != "x [redacted]" {
					t.Errorf("got %q", got)
				}
			}
		})
	}
	wg.Wait()
}

func TestLine(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		limit      int
		want       string
	}{
		{"plain", "hello", 10, "hello"},
		{"control characters", "a\x00b\x1b[2Jc\r\n\td", 100, "a b [2Jc d"},
		{"direction and zero width", "a\u202eb\u200bc\u2066d", 100, "a b c d"},
		{"line separators", "a\u2028b\u2029c\u0085d", 100, "a b c d"},
		{"no UTF-8", "a\xff\xfeb", 100, "a b"},
		{"cut", "0123456789", 8, "01234..."},
		{"cut within a character", "0123é56789", 8, "0123..."},
		{"no room", "0123456789", 2, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := redact.Line(tc.text, tc.limit); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// FuzzText hides a secret in a text in any spelling, cut and mixed with anything.
func FuzzText(f *testing.F) {
	f.Add(uint64(1), token, "text", 100)
	f.Add(uint64(2), key, `{"a":"`, 1000)
	f.Add(uint64(3), strings.Repeat("ab", 40), "%25%41\\", 50)
	names := make([]string, 0, len(spellings))
	for name := range spellings {
		names = append(names, name)
	}
	f.Fuzz(func(t *testing.T, seed uint64, secret, text string, limit int) {
		if len(secret) < 12 || len(secret) > 300 || len(text) > 10_000 || limit < 0 {
			return
		}
		rng := rand.New(rand.NewPCG(seed, 1))
		s := redact.New(secret)
		hidden := spellings[names[rng.IntN(len(names))]](secret)
		from := rng.IntN(len(hidden))
		at := rng.IntN(len(text) + 1)
		got := s.Text(text[:at]+hidden[from:]+text[at:], limit)
		for i := 0; i+12 <= len(secret); i++ {
			if strings.Contains(got, secret[i:i+12]) {
				t.Fatalf("%q of %q is in %q", secret[i:i+12], secret, got)
			}
		}
		if len(got) > limit || strings.ContainsFunc(got, func(r rune) bool { return r < ' ' }) {
			t.Errorf("got %q with a limit of %d", got, limit)
		}
	})
}

func BenchmarkBytes(b *testing.B) {
	s := redact.New(key, token)
	small := []byte(`{"success":true,"lastLocation":{"dateTime":"2024-06-02T08:48:25.009Z","latitude":4.710989,"note":"` + strings.Repeat("x", 800) + `"}}`)
	for name, text := range map[string][]byte{
		"poll":              small,
		"poll with escapes": bytes.Replace(small, []byte("xxx"), []byte(`\u00e9`), 1),
		"MiB":               bytes.Repeat(small, 1<<20/len(small)),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				s.Bytes(text)
			}
		})
	}
}

// TestFileError: the path may be the secret itself.
func TestFileError(t *testing.T) {
	_, err := os.ReadFile(filepath.Join(t.TempDir(), "hunter2-hunter2"))
	got := redact.FileError(fmt.Errorf("read: %w", err))
	if !errors.Is(got, fs.ErrNotExist) || strings.Contains(got.Error(), "hunter2") {
		t.Errorf("got %v", got)
	}
	if other := errors.New("other"); !errors.Is(redact.FileError(other), other) || redact.FileError(nil) != nil {
		t.Error("another error changed")
	}
}
