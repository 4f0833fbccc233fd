package auth_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"plaspy-bridge/auth"
)

// get asks for one resource over and over, with a pause between, until ctx ends. It
// counts the answers 200, and gives the longest time that an answer took.
func get(ctx context.Context, t *testing.T, rt http.RoundTripper, path string, pause time.Duration) (good int, longest time.Duration) {
	t.Helper()
	for ctx.Err() == nil {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://api.example.com"+path, nil)
		if err != nil {
			t.Error(err)
			return good, longest
		}
		start := time.Now()
		res, err := rt.RoundTrip(req)
		if err == nil {
			longest = max(longest, time.Since(start))
			if res.StatusCode == http.StatusOK {
				good++
			}
		}
		time.Sleep(pause)
	}
	return good, longest
}

func TestResourcesThatRefuseEveryToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(24 * time.Hour)
		a.resource = func(_ int, r *http.Request, _ bool) *http.Response {
			if strings.HasPrefix(r.URL.Path, "/bad") {
				return answer(401, "")
			}
			return nil
		}
		m, _ := newManager(t, a)
		tr := &auth.Transport{Source: m, Base: a}
		call(t, tr)
		const minutes = 10
		ctx, cancel := context.WithTimeout(t.Context(), minutes*time.Minute)
		defer cancel()
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() { get(ctx, t, tr, fmt.Sprint("/bad", i), 200*time.Millisecond) })
		}
		for range 5 {
			wg.Go(func() {
				if _, longest := get(ctx, t, tr, "/good", 200*time.Millisecond); longest > 0 {
					t.Errorf("an answer took %v although only another request was held up", longest)
				}
			})
		}
		wg.Wait()
		if got := a.tokenRequests(); got > 2*10+minutes {
			t.Errorf("%d tokens were asked for in %d minutes, want one a minute, and two for each that was not known", got, minutes)
		}
		// A token that is really revoked is replaced soon, although others refused it before.
		call(t, tr)
		before := a.tokenRequests()
		a.revoke()
		a.resource = nil
		start := time.Now()
		for call(t, tr).StatusCode != http.StatusOK {
			time.Sleep(100 * time.Millisecond)
		}
		if got := time.Since(start); got > 3*time.Second || a.tokenRequests() != before+1 {
			t.Errorf("after a revocation: %v and %d token requests, want 3 s at most and one", got, a.tokenRequests()-before)
		}
	})
}

// TestOnlyTheNewestTokenLives: two processes with one key at an API that lets an
// account have one token.
func TestOnlyTheNewestTokenLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(24 * time.Hour)
		a.token = func(int, *http.Request) *http.Response {
			a.revoke()
			return nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		var wg sync.WaitGroup
		var mu sync.Mutex
		var said []*logs
		for n := range 2 {
			wg.Go(func() {
				time.Sleep(time.Duration(n) * 50 * time.Millisecond) // two that start in one instant may end each other's first tokens unused
				m, l := newManager(t, a)
				tr := &auth.Transport{Source: m, Base: a}
				var devices sync.WaitGroup
				for i := range 5 {
					devices.Go(func() {
						path, pause := fmt.Sprint("/device", i), time.Duration(100+17*i+7*n)*time.Millisecond
						good, longest := get(ctx, t, tr, path, pause)
						if good < 1000 || longest > 10*time.Second {
							t.Errorf("%d answers in ten minutes, one after %v: want either process to come to its turn", good, longest)
						}
					})
				}
				devices.Wait()
				mu.Lock()
				defer mu.Unlock()
				said = append(said, l)
			})
		}
		wg.Wait()
		// Each one a second in the mean at most, and a few at first.
		if got := a.tokenRequests(); got > 2*600+2*20 {
			t.Errorf("%d token requests in ten minutes", got)
		}
		for _, l := range said {
			if got := l.count(t, "spacing out token requests; is this API key in use elsewhere?"); got != 1 {
				t.Errorf("logged %d times, want once: %s", got, l)
			}
		}
		// A single client works again and reports it.
		m, l := newManager(t, a)
		tr := &auth.Transport{Source: m, Base: a}
		for range 20 {
			call(t, tr)
			a.revoke()
			time.Sleep(3 * time.Second)
		}
		for range 2 {
			time.Sleep(time.Minute)
			for call(t, tr).StatusCode != http.StatusOK {
				time.Sleep(time.Second)
			}
		}
		time.Sleep(time.Minute)
		a.revoke()
		start := time.Now()
		if res := call(t, tr); res.StatusCode != http.StatusOK || time.Since(start) != 0 || l.count(t, "tokens are accepted again") != 1 {
			t.Errorf("after a quiet minute: status %d after %v: %s", res.StatusCode, time.Since(start), l)
		}
	})
}
