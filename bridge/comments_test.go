package bridge_test

import (
	"go/ast"
	"go/token"
	"strings"
	"testing"
)

// TestPackageComments checks that each package has one package comment, and that it
// is not a licence header.
func TestPackageComments(t *testing.T) {
	comments := map[string][]string{} // by folder
	for _, s := range sources(t) {
		if comments[s.folder] == nil {
			comments[s.folder] = []string{}
		}
		if s.file.Doc != nil {
			comments[s.folder] = append(comments[s.folder], s.file.Doc.Text())
		}
		if want := "Package " + s.file.Name.Name + " "; s.file.Doc != nil && s.file.Name.Name != "main" && !strings.HasPrefix(s.file.Doc.Text(), want) {
			t.Errorf("%s/%s: the package comment does not begin with %q", s.folder, s.name, want)
		}
	}
	for folder, found := range comments {
		if len(found) != 1 {
			t.Errorf("%s: %d package comments, want 1", folder, len(found))
		}
	}
}

// TestDocComments checks that every exported name has a comment.
func TestDocComments(t *testing.T) {
	for _, s := range sources(t) {
		for _, decl := range s.file.Decls {
			for _, name := range undocumented(decl) {
				t.Errorf("%s/%s: %s has no comment", s.folder, s.name, name)
			}
		}
	}
}

// TestDocCommentsNameTheirFunction checks that the comment of a function begins with its
// name, also if it is not exported. Otherwise a comment keeps the old name at a rename.
func TestDocCommentsNameTheirFunction(t *testing.T) {
	for _, s := range sources(t) {
		for _, decl := range s.file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || strings.TrimSpace(f.Doc.Text()) == "" {
				continue
			}
			first := strings.TrimRight(strings.Fields(f.Doc.Text())[0], ",.;:")
			if strings.TrimSuffix(first, "'s") != f.Name.Name {
				t.Errorf("%s/%s: the comment of %s begins with %q", s.folder, s.name, f.Name.Name, first)
			}
		}
	}
}

// undocumented returns the exported names that a declaration leaves without a
// comment. A comment on a group of constants or variables is one on each.
func undocumented(decl ast.Decl) []string {
	var names []string
	missing := func(name *ast.Ident, docs ...*ast.CommentGroup) {
		for _, doc := range docs {
			if strings.TrimSpace(doc.Text()) != "" {
				return
			}
		}
		if name.IsExported() {
			names = append(names, name.Name)
		}
	}
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Recv == nil || receiver(d.Recv.List[0].Type).IsExported() {
			missing(d.Name, d.Doc)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch sp := spec.(type) {
			case *ast.TypeSpec:
				missing(sp.Name, sp.Doc, sp.Comment, lone(d))
			case *ast.ValueSpec:
				for _, name := range sp.Names {
					missing(name, sp.Doc, sp.Comment, d.Doc)
				}
			}
		}
	}
	return names
}

// lone is the comment of a declaration without parentheses, which is that of its
// one name.
func lone(d *ast.GenDecl) *ast.CommentGroup {
	if d.Lparen == token.NoPos {
		return d.Doc
	}
	return nil
}

// receiver returns the name of a method's type.
func receiver(expr ast.Expr) *ast.Ident {
	switch e := expr.(type) {
	case *ast.Ident:
		return e
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.IndexListExpr:
		return receiver(e.X)
	default:
		return ast.NewIdent("_")
	}
}
