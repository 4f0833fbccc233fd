package glob

import "testing"

func TestCheck(t *testing.T) {
	for pattern, want := range map[string]error{
		"": nil, "truck-*": nil, "a?c": nil, "[a-c]x": nil, "[^a]*": nil, `[\!a]`: nil, "[a!]": nil, `\[!x`: nil, "wow!": nil, `[\]!]`: nil, "[[!]": nil,
		"[": errUnfinished, "a[b": errUnfinished, `a\`: errUnfinished, "[]": errUnfinished, "[a-]": errUnfinished,
		"[!a]*": errNegated, "x[!a-c]": errNegated, "[a][!b]": errNegated, `\\[!a]`: errNegated,
	} {
		if got := Check(pattern); got != want { //nolint:errorlint // returned as they are
			t.Errorf("%q: %v, want %v", pattern, got, want)
		}
	}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, id string
		want        bool
	}{
		{"truck-*", "truck-7", true},
		{"truck-*", "bus-7", false},
		{"*", "a/b", true},
		{"a?b", "a/b", true},
		{"a/*", "a/b", true},
		{"[^a]", "b", true},
		{"[", "[", true}, // an id
		{"[", "x", false},
		{"", "", true},
		{"", "x", false},
	} {
		if got := Match(c.pattern, c.id); got != c.want {
			t.Errorf("%q matches %q: %t", c.pattern, c.id, got)
		}
	}
}
