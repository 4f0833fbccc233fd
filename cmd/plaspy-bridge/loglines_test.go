package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestWarningsAreExplained checks that the troubleshooting page explains every log line of
// level Warn or Error that the program has.
func TestWarningsAreExplained(t *testing.T) {
	page := readPage(t, troubleshooting)
	lines := map[string]string{} // the places, by message
	for name, text := range goSources(t) {
		file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for n := range ast.Preorder(file) {
			if call, ok := n.(*ast.CallExpr); ok && isWarning(call) {
				if message := firstText(call.Args); message != "" {
					lines[message] = name
				}
			}
		}
	}
	for _, message := range slices.Sorted(maps.Keys(lines)) {
		if !strings.Contains(page, "`"+message+"`") {
			t.Errorf("%s has no row for the log line %q of %s", troubleshooting, message, lines[message])
		}
	}
	if len(lines) < 50 {
		t.Errorf("only %d log lines found", len(lines))
	}
}

// isWarning reports whether a call logs at Warn or Error: by a method or a function that is
// named after the level, or by one that takes the level as an argument.
func isWarning(call *ast.CallExpr) bool {
	name := ""
	switch f := call.Fun.(type) {
	case *ast.Ident:
		name = f.Name
	case *ast.SelectorExpr:
		if x, ok := f.X.(*ast.Ident); ok && x.Name == "http" {
			return false // http.Error answers a request
		}
		name = f.Sel.Name
	}
	switch strings.ToLower(strings.TrimSuffix(name, "Context")) {
	case "warn", "error":
		return true
	}
	return slices.ContainsFunc(call.Args, func(arg ast.Expr) bool {
		level, ok := arg.(*ast.SelectorExpr)
		return ok && (level.Sel.Name == "LevelWarn" || level.Sel.Name == "LevelError")
	})
}

// firstText returns the first string literal of a call's arguments, or "".
func firstText(args []ast.Expr) string {
	for _, arg := range args {
		if text, ok := arg.(*ast.BasicLit); ok && text.Kind == token.STRING {
			message, _ := strconv.Unquote(text.Value)
			return message
		}
	}
	return ""
}
