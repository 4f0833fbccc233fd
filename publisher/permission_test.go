package publisher

import (
	"strings"
	"testing"
)

// TestPermissions: a subject that can be tried is one that its permission
// covers, and it names nothing that exists.
func TestPermissions(t *testing.T) {
	s := Subjects("plaspy")
	all := append(Needs(s), Replies("_INBOX"))
	all = append(all, Watching(s.ReplicasBucket(), "w")...)
	for _, p := range all {
		if (p.Publish == "") == (p.Subscribe == "") {
			t.Errorf("%+v: want either Publish or Subscribe", p)
		}
		if p.Why == "" {
			t.Errorf("%s: no reason", p.Subject())
		}
		if p.Try == "" {
			continue
		}
		if !matches(p.Subject(), p.Try) || strings.ContainsAny(p.Try, "*>") {
			t.Errorf("%s does not match %s", p.Try, p.Subject())
		}
	}
}

// matches reports whether a subject without wildcards matches a pattern.
func matches(pattern, subject string) bool {
	p, s := strings.Split(pattern, "."), strings.Split(subject, ".")
	for i, token := range p {
		if token == ">" {
			return len(s) > i
		}
		if i >= len(s) || token != "*" && token != s[i] {
			return false
		}
	}
	return len(p) == len(s)
}
