package decision

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"testing"
	"time"
)

// TestDecisionsKeepApart: equal results in a row count as one, and others displace nothing.
func TestDecisionsKeepApart(t *testing.T) {
	errOne, errOther := errors.New("another replica may be polling"), errors.New("the quota is used up")
	var l Log
	now := time.Now()
	turn := func(r Result, err error) {
		var d Decision
		d.Note(r, err)
		now = now.Add(time.Second)
		l.Add(d, now)
	}
	turn(Changed, nil)
	for range 24 {
		turn(PutOff, errOne)
	}
	turn(PutOff, errOther)
	l.Add(Decision{}, now) // a turn without a result
	var got []string
	for _, e := range l.List() {
		got = append(got, fmt.Sprint(e.Result, " ", e.Times, " ", e.Detail))
	}
	if want := []string{"deferred 0 " + errOther.Error(), "deferred 24 " + errOne.Error(), "changed 0 "}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if last := l.List()[1].At; !last.Equal(now.Add(-time.Second).UTC().Truncate(time.Millisecond)) {
		t.Errorf("the repeated one is of %v, want the last time", last)
	}
}

// TestResultsAreExplained checks that the page for operators and the schema have each result.
func TestResultsAreExplained(t *testing.T) {
	page, err := os.ReadFile("../../../deploy/docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	document, err := os.ReadFile("../../../deploy/asyncapi.json")
	if err != nil {
		t.Fatal(err)
	}
	schema := regexp.MustCompile(`One of unchanged, [a-z_, ]+\.`).Find(document)
	for r := Unchanged; r <= PutOff; r++ {
		if !bytes.Contains(page, []byte("`"+r.String()+"`")) || !regexp.MustCompile(`\b`+r.String()+`\b`).Match(schema) {
			t.Errorf("deploy/docs/metrics.md or the schema lacks the result %q", r)
		}
	}
}
