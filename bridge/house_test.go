package bridge_test

import (
	"go/ast"
	"go/token"
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

// TestHouseSizes holds types, interfaces and packages to the limits. Moving parts of a
// type elsewhere in its package makes it no smaller:
//   - A struct of the same package that is embedded counts with its fields and methods,
//     because they are reached as the type's own. A named field counts once.
//   - A plain function counts as a method of T if its first parameter other than a
//     context is a T or *T of the same package, and T has methods: it is a method with
//     the receiver written behind the name. Functions over a type without methods, such
//     as options, count for none. A constructor counts for the type that it is given.
func TestHouseSizes(t *testing.T) {
	files, interfaces, types := measured(sources(t))
	methods, fields := map[string]int{}, map[string]int{}
	for name := range types {
		methods[name], fields[name] = total(types, name)
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

// measured counts the files of each package, the methods of each interface and the
// parts of each type.
func measured(all []source) (files, interfaces map[string]int, types map[string]*size) {
	files, interfaces, types = map[string]int{}, map[string]int{}, map[string]*size{}
	of := func(folder, name string) *size {
		key := folder + "." + name
		if types[key] == nil {
			types[key] = &size{}
		}
		return types[key]
	}
	for _, s := range all {
		files[s.folder]++
		for _, decl := range s.file.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Recv != nil {
					of(s.folder, receiver(d.Recv.List[0].Type).Name).methods++
				} else if name := subject(d); name != "" {
					of(s.folder, name).functions++
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					ts, ok := spec.(*ast.TypeSpec)
					if !ok {
						continue
					}
					switch typ := ts.Type.(type) {
					case *ast.StructType:
						it := of(s.folder, ts.Name.Name)
						it.fields = members(typ.Fields)
						for _, f := range typ.Fields.List {
							if len(f.Names) == 0 {
								it.embeds = append(it.embeds, s.folder+"."+receiver(f.Type).Name)
							}
						}
					case *ast.InterfaceType:
						interfaces[s.folder+"."+ts.Name.Name] = members(typ.Methods)
					}
				}
			}
		}
	}
	return files, interfaces, types
}

// size is the number of parts that a type declares itself. embeds are the types
// that it embeds.
type size struct {
	methods, functions, fields int
	embeds                     []string
}

// total returns the size of a type with everything that it embeds of its package.
func total(types map[string]*size, name string) (methods, fields int) {
	it := types[name]
	methods, fields = it.methods, it.fields
	if methods > 0 {
		methods += it.functions
	}
	for _, embedded := range it.embeds {
		if types[embedded] != nil {
			m, f := total(types, embedded)
			methods, fields = methods+m, fields+max(f-1, 0) // the embedded struct itself is no field more
		}
	}
	return methods, fields
}

// subject names the type that a plain function works on. It returns "_" for one of
// another package, and "" if there is none.
func subject(f *ast.FuncDecl) string {
	for _, p := range f.Type.Params.List {
		if sel, ok := p.Type.(*ast.SelectorExpr); ok && sel.Sel.Name == "Context" {
			continue
		}
		return receiver(p.Type).Name
	}
	return ""
}

// members counts names, and embedded ones.
func members(list *ast.FieldList) int {
	n := 0
	for _, f := range list.List {
		n += max(1, len(f.Names))
	}
	return n
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

// TestHouseTypes checks that the comment of a type begins with its name, since a comment may lose its first
// lines in a move.
func TestHouseTypes(t *testing.T) {
	commented := 0
	for _, s := range sources(t) {
		for _, decl := range s.file.Decls {
			d, ok := decl.(*ast.GenDecl)
			if !ok || d.Tok != token.TYPE || d.Doc == nil || d.Lparen.IsValid() {
				continue
			}
			commented++
			name := d.Specs[0].(*ast.TypeSpec).Name.Name
			if begins := regexp.MustCompile(`^((A|An|The) )?` + name + `\b`); !begins.MatchString(d.Doc.Text()) {
				t.Errorf("%s/%s: the comment of %s begins otherwise: %.50q", s.folder, s.name, name, d.Doc.Text())
			}
		}
	}
	if commented == 0 {
		t.Error("no type has a comment: the test looks in the wrong place")
	}
}

// TestHouseFolders checks that every folder of the module that the README or
// CONTRIBUTING names exists.
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
