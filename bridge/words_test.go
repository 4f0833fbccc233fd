package bridge_test

import (
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// words are typical of a text that was translated word by word, with the number per 1,000 words that is still natural.
var words = []struct {
	name string
	word *regexp.Regexp
	most float64
}{
	{"what", regexp.MustCompile(`^what(ever)?$`), 2.5},
	{"where", regexp.MustCompile(`^where(ver)?$`), 1.5},
	{"tell", regexp.MustCompile(`^(tell|tells|told)$`), 0.6},
	{"who", regexp.MustCompile(`^who(m|se|ever)?$`), 0.5},
	{"somebody", regexp.MustCompile(`^(some|no|every|any)body$`), 0.2},
}

// TestHouseWords counts the words in the comments of the whole module and in its pages.
func TestHouseWords(t *testing.T) {
	tests := found(t)(parse(func(name string) bool { return strings.HasSuffix(name, "_test.go") }))
	for set, texts := range map[string]map[string]string{
		"program":   comments(sources(t)),
		"tests":     comments(tests),
		"scripts":   written(t, `\.(js|mjs|ts|mts|css)$`, `(?m)(?:(?:^|\s)// |^\s*/?\*).*`),
		"settings":  written(t, `\.(ya?ml|sh|conf|service|example|py|tpl|sysusers)$|^Dockerfile$|^run$|^provenance$`, `(?m)(?:^|\s)#+ .*`),
		"decisions": written(t, `^\d{4}-.*\.md$`, `(?s).*`),
		"pages":     written(t, `^[A-Za-z].*\.md$`, `(?s).*`),
	} {
		t.Run(set, func(t *testing.T) { count(t, texts) })
	}
}

// comments returns the comments of Go files by path.
func comments(files []source) map[string]string {
	texts := map[string]string{}
	for _, s := range files {
		for _, group := range s.file.Comments {
			texts[path.Join(s.folder, s.name)] += group.Text()
		}
	}
	return texts
}

// written returns by path the parts of the module's files that match a pattern. It leaves out generated files
// and the changelog, which keeps old entries as they were.
func written(t *testing.T, names, parts string) map[string]string {
	t.Helper()
	name, part, texts := regexp.MustCompile(names), regexp.MustCompile(parts), map[string]string{}
	skipped := []string{".git", "node_modules", "testdata", "CHANGELOG.md"}
	err := filepath.WalkDir("..", func(file string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case slices.Contains(skipped, entry.Name()) && entry.IsDir():
			return filepath.SkipDir
		case entry.IsDir() || slices.Contains(skipped, entry.Name()) || !name.MatchString(entry.Name()):
			return nil
		}
		text, err := os.ReadFile(file)
		if err == nil && !strings.Contains(string(text), "Code generated") {
			texts[filepath.ToSlash(file)] = strings.Join(part.FindAllString(string(text), -1), "\n")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return texts
}

// count fails the test if texts, by path, have too many of the words.
func count(t *testing.T, texts map[string]string) {
	all, counts, in := 0, make([]int, len(words)), make([]map[string]int, len(words))
	split := regexp.MustCompile(`[^a-z']+`)
	for name, text := range texts {
		for _, word := range split.Split(strings.ToLower(text), -1) {
			if word == "" {
				continue
			}
			all++
			for i, w := range words {
				if w.word.MatchString(word) {
					counts[i]++
					if in[i] == nil {
						in[i] = map[string]int{}
					}
					in[i][name]++
				}
			}
		}
	}
	if all < 500 {
		t.Fatalf("only %d words: the test looks in the wrong place", all)
	}
	for i, w := range words {
		rate := float64(counts[i]) * 1000 / float64(all)
		t.Logf("%s: %.2f of %d words, %.1f of 1,000 at most", w.name, rate, all, w.most)
		if rate > w.most {
			t.Errorf("%s: %.2f of 1,000 words, %.1f at most; most of them: %v", w.name, rate, w.most, most(in[i]))
		}
	}
}

// most names the files with the largest counts.
func most(counts map[string]int) []string {
	files := slices.SortedFunc(maps.Keys(counts), func(a, b string) int { return counts[b] - counts[a] })
	return files[:min(len(files), 5)]
}
