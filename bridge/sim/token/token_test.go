package token

import (
	"testing"
	"time"
)

// Old tokens are forgotten, those in use are not.
func TestTokensAreBounded(t *testing.T) {
	s := New(Options{User: "sim", Key: "sim-key", Life: time.Hour})
	s.maximum = 3
	now := time.Now()
	var issued []string
	for range 10 {
		tok, _, ok := s.Issue("sim", "sim-key", now)
		if !ok {
			t.Fatal("refused")
		}
		issued = append(issued, tok)
	}
	if n := len(s.valid) + len(s.old); n != 3 {
		t.Errorf("got %d tokens kept, want 3", n)
	}
	for i, want := range []int64{0, 10} {
		if got := s.Check(issued[i*9], now); got != want {
			t.Errorf("got number %d for token %d, want %d", got, i*9+1, want)
		}
	}
}

func TestCounts(t *testing.T) {
	s := New(Options{User: "sim", Key: "a", Life: time.Minute})
	now := time.Now()
	first, expires, ok := s.Issue("sim", "a", now)
	if !ok || !expires.Equal(now.Add(time.Minute)) || s.Check(first, now) != 1 {
		t.Fatalf("got %q until %s, want a valid token until a minute from %s", first, expires, now)
	}
	s.Check(first, expires)
	s.Check("", now)
	s.SetKey("b")
	s.Check(first, now)
	if _, _, ok := s.Issue("sim", "a", now); ok {
		t.Error("the old key got a token")
	}
	s.SetLife(time.Second)
	if _, expires, ok := s.Issue("sim", "b", now); !ok || !expires.Equal(now.Add(time.Second)) {
		t.Errorf("the new key got %t until %s, want a second", ok, expires)
	}
	want := Counts{Requests: 3, Issued: 2, Refused: 1, Expired: 1, Revoked: 1, Unknown: 1}
	if got := s.Counts(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
