package bridge_test

import (
	"go/ast"
	"go/token"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// subjectLiteral matches a string that is, or is a part of, a subject of the
// bridge or the name of a bucket's stream. The JetStream API's own are no such.
var subjectLiteral = regexp.MustCompile(`^\$KV\.|^KV_|^\.?in\.(\*|>|location|alert|$)|\.in\.[*>{]|^\.(location|alert|device|result|dlq|api)\.`)

// TestSubjectsAreBuiltInPublisher: no other package writes a subject, so that none
// can differ from those that are subscribed to, stored and permitted.
func TestSubjectsAreBuiltInPublisher(t *testing.T) {
	t.Parallel()
	found := 0
	for _, s := range sources(t) {
		inside := s.folder == "publisher"
		// The examples and the printed types are as users would write them. The
		// preflight asks the server about permissions by their names.
		if !inside && (strings.HasPrefix(s.folder, "publisher/") || strings.HasPrefix(s.folder, "deploy/") || s.folder == "bridge/preflight" || s.folder == "bridge/schema/plaspy") {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			lit, ok := n.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			text, err := strconv.Unquote(lit.Value)
			if err != nil || !subjectLiteral.MatchString(text) {
				return true
			}
			if found++; !inside {
				t.Errorf("%s/%s: %s is a subject: build it with publisher.Subjects", s.folder, s.name, lit.Value)
			}
			return true
		})
	}
	if found < 10 {
		t.Errorf("%d subjects found, all in all", found)
	}
}
