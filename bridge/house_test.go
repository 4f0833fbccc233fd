package bridge_test

import (
	"go/ast"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The limits of the house style. Wire structs, options, settings and metrics are
// not bound by the number of fields.
const (
	mostMethods   = 35
	mostFields    = 18
	mostFiles     = 10
	mostInterface = 3
)

// oversized are the types and packages above a limit, each with its reason.
var oversized = map[string]string{
	"bridge/schema/plaspy.Location":   "the wire form of a location",
	"deploy/examples/plaspy.Location": "the wire form of a location",
}

// TestHouseSizes holds types, interfaces and packages to the limits.
func TestHouseSizes(t *testing.T) {
	files, methods, fields, interfaces := map[string]int{}, map[string]int{}, map[string]int{}, map[string]int{}
	for _, s := range sources(t) {
		files[s.folder]++
		for _, decl := range s.file.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Recv != nil {
					methods[s.folder+"."+receiver(d.Recv.List[0].Type).Name]++
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					ts, ok := spec.(*ast.TypeSpec)
					if !ok {
						continue
					}
					name := s.folder + "." + ts.Name.Name
					switch typ := ts.Type.(type) {
					case *ast.StructType:
						fields[name] = members(typ.Fields)
					case *ast.InterfaceType:
						interfaces[name] = members(typ.Methods)
					}
				}
			}
		}
	}
	free := regexp.MustCompile(`\.(\w*[Oo]ptions|\w*[Mm]etrics|Config|Report)$`)
	over := map[string]bool{}
	check := func(kind string, sizes map[string]int, most int, exempt *regexp.Regexp) {
		for _, name := range slices.Sorted(maps.Keys(sizes)) {
			if sizes[name] <= most || exempt != nil && exempt.MatchString(name) {
				continue
			}
			over[name] = true
			if oversized[name] == "" {
				t.Errorf("%s has %d %s, %d at most", name, sizes[name], kind, most)
			}
		}
	}
	check("files", files, mostFiles, nil)
	check("methods", methods, mostMethods, nil)
	check("fields", fields, mostFields, free)
	check("methods", interfaces, mostInterface, nil)
	for name := range oversized {
		if !over[name] {
			t.Errorf("%s is within the limits now: take it off the list", name)
		}
	}
}

// members counts names, and embedded ones.
func members(list *ast.FieldList) int {
	n := 0
	for _, f := range list.List {
		n += max(1, len(f.Names))
	}
	return n
}

// words are those that betray a translation, with the number per 1,000 words of comments that is still natural.
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

// TestHouseWords counts words of the comments of the whole module.
func TestHouseWords(t *testing.T) {
	all, counts, in := 0, make([]int, len(words)), make([]map[string]int, len(words))
	split := regexp.MustCompile(`[^a-z']+`)
	for _, s := range sources(t) {
		for _, group := range s.file.Comments {
			for _, word := range split.Split(strings.ToLower(group.Text()), -1) {
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
						in[i][path.Join(s.folder, s.name)]++
					}
				}
			}
		}
	}
	for i, w := range words {
		rate := float64(counts[i]) * 1000 / float64(all)
		t.Logf("%s: %.2f of 1,000 words, %.1f at most", w.name, rate, w.most)
		if rate > w.most {
			t.Errorf("%s: %.2f of 1,000 words of the comments, %.1f at most; most of them: %v", w.name, rate, w.most, most(in[i]))
		}
	}
}

// most names the files with the largest counts.
func most(counts map[string]int) []string {
	files := slices.SortedFunc(maps.Keys(counts), func(a, b string) int { return counts[b] - counts[a] })
	return files[:min(len(files), 5)]
}

// TestHouseSleeps finds a time.Sleep in real time. A test that waits so for something
// depends on how soon another goroutine gets the CPU. Sleeps are for the bubbles of
// testing/synctest, which helpers and function literals of such a package may be for.
func TestHouseSleeps(t *testing.T) {
	t.Parallel()
	files := found(t)(parse(func(name string) bool { return strings.HasSuffix(name, "_test.go") }))
	bubbles := map[string]bool{}
	for _, s := range files {
		for _, i := range s.file.Imports {
			bubbles[s.folder] = bubbles[s.folder] || i.Path.Value == `"testing/synctest"`
		}
	}
	sleeps := 0
	for _, s := range files {
		for _, decl := range s.file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Name.Name == "TestMain" { // a process of its own, if it sleeps
				continue
			}
			test := regexp.MustCompile(`^(Test|Fuzz|Benchmark)`).MatchString(f.Name.Name)
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.FuncLit:
					if bubbles[s.folder] {
						return false
					}
				case *ast.CallExpr:
					if called(n) == "time.Sleep" {
						sleeps++
						if test || !bubbles[s.folder] {
							t.Errorf("%s/%s: %s sleeps outside a bubble: wait for the event itself", s.folder, s.name, f.Name.Name)
						}
					}
				}
				return true
			})
		}
	}
	if sleeps == 0 {
		t.Error("no helper sleeps: the test looks in the wrong place")
	}
}

// called names the function of another package that is called, or is empty.
func called(call *ast.CallExpr) string {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	of, ok := sel.X.(*ast.Ident)
	if !ok {
		return ""
	}
	return of.Name + "." + sel.Sel.Name
}

// TestHouseFolders wants every folder of the module that the README or CONTRIBUTING
// names to exist.
func TestHouseFolders(t *testing.T) {
	named := regexp.MustCompile("`((?:auth|bridge|cmd|deploy|publisher)(?:/[a-z-]+)*)`")
	for _, page := range []string{"../README.md", "../.github/CONTRIBUTING.md"} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		found := named.FindAllSubmatch(text, -1)
		if len(found) == 0 {
			t.Errorf("%s names no folder", page)
		}
		for _, match := range found {
			if info, err := os.Stat(path.Join("..", string(match[1]))); err != nil || !info.IsDir() {
				t.Errorf("%s names %s, which is not a folder", page, match[1])
			}
		}
	}
}
