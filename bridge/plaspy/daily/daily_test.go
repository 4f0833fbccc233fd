package daily_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"plaspy-bridge/bridge/plaspy/daily"
)

var (
	start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) // half of a day is left
	poll  = daily.Request{Kind: 0}
	post  = daily.Request{Kind: 1, First: true}
)

const halfDay = 12 * time.Hour

// statement is an answer that was served and has a usage of 1.
func statement(total int) daily.Answer { return daily.Answer{Usage: 1, Total: total, Served: true} }

// stated returns a pace at noon with a usage that the API stated; its answer's request is part of that.
func stated(limit, total int) *daily.Pace {
	p := daily.New(limit, start)
	p.Heard(0, p.Grant(0, poll), statement(total))
	return p
}

func TestNoLimit(t *testing.T) {
	p := daily.New(0, start)
	for range 1000 {
		p.Heard(0, p.Grant(0, poll), statement(1e9))
	}
	s := p.State(0, 0, 600)
	if p.On() || p.Wait(0, poll) != 0 || s.Short || s.UsedUp || s.Limit != 0 || !math.IsInf(s.Rate, 1) {
		t.Errorf("a pace without a limit limits: %+v", s)
	}
}

func TestState(t *testing.T) {
	for _, tt := range []struct {
		name         string
		limit, total int
		want         daily.State // at 1 request a minute
	}{
		{"nothing used", 720 * 2, 1, daily.State{Limit: 1440, Rate: 1439. / 720}},
		{"even use", 1440, 720, daily.State{Limit: 1440, Rate: 1}},
		{"more than even", 1440, 1080, daily.State{Limit: 1440, Rate: 0.5, Short: true}},
		{"used up", 1440, 1440, daily.State{Limit: 1440, UsedUp: true, Short: true}},
		{"beyond the limit", 1440, 2000, daily.State{Limit: 1440, UsedUp: true, Short: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := stated(tt.limit, tt.total).State(0, 0, 1)
			if math.Abs(got.Rate-tt.want.Rate) > 1e-9 {
				t.Errorf("rate %v, want %v", got.Rate, tt.want.Rate)
			}
			if got.Rate = tt.want.Rate; got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// TestShortDoesNotFlap: a pace about the other rate is short until it is well above.
func TestShortDoesNotFlap(t *testing.T) {
	p := stated(1440, 721)
	changes, was := 0, p.State(0, 0, 1).Short
	for i := range 100 {
		p.Heard(0, p.Grant(0, poll), statement(719+i%3))
		if short := p.State(0, 0, 1).Short; short != was {
			changes, was = changes+1, short
		}
	}
	p.Heard(0, p.Grant(0, poll), statement(600))
	if changes > 0 || !was || p.State(0, 0, 1).Short {
		t.Errorf("short changed %d times, then %t, and %t with room", changes, was, p.State(0, 0, 1).Short)
	}
}

// TestPostsMayBeAhead: at noon with 1,000 left, polls may send a few at once, and posts half of the rest.
func TestPostsMayBeAhead(t *testing.T) {
	for _, tt := range []struct {
		name     string
		r        daily.Request
		min, max int
	}{{"poll", poll, 13, 16}, {"post", post, 490, 501}} {
		t.Run(tt.name, func(t *testing.T) {
			p := stated(2000, 1000)
			n := 0
			for ; p.Wait(0, tt.r) == 0; n++ {
				p.Grant(0, tt.r)
			}
			if n < tt.min || n > tt.max {
				t.Errorf("%d at once, want %d to %d", n, tt.min, tt.max)
			}
			if w := p.Wait(0, tt.r); w <= 0 || w > 5*time.Minute {
				t.Errorf("then a wait of %v", w)
			}
		})
	}
}

// TestShareGrows: a process has no share before it has joined the others, and its credits when it has one.
func TestShareGrows(t *testing.T) {
	p := daily.New(2000, start)
	p.SetShare(0, 1e-6)
	p.Wait(time.Second, poll)
	p.SetShare(time.Second, 1)
	for i := range 10 {
		if w := p.Wait(time.Second, poll); w > 0 {
			t.Fatalf("poll %d waits %v", i, w)
		}
		p.Grant(time.Second, poll)
	}
}

// TestPollsWaitForPosts: while posts use all of the pace, polls get nothing of it.
func TestPollsWaitForPosts(t *testing.T) {
	p := stated(2000, 1000)
	for p.Wait(0, post) == 0 {
		p.Grant(0, post)
	}
	for at := time.Duration(0); at < time.Hour; {
		w := p.Wait(at, post)
		if p.Wait(at, poll) < w {
			t.Fatalf("at %v a poll waits %v and a post %v", at, p.Wait(at, poll), w)
		}
		if at += w; w == 0 {
			p.Grant(at, post)
		}
	}
}

func TestReturn(t *testing.T) {
	p := stated(1000, 900)
	var g daily.Grant
	for p.Wait(0, post) == 0 {
		g = p.Grant(0, post)
	}
	if p.Return(0, g); p.Wait(0, post) > 0 {
		t.Error("a returned grant cannot be used again")
	}
	if p.Grant(0, post); p.Wait(0, post) == 0 {
		t.Error("a returned grant can be used twice")
	}
}

// TestLearntLimit: all requests are refused with the same usage for longer than a limit on the rate explains.
func TestLearntLimit(t *testing.T) {
	refusal := daily.Answer{Total: 700, Refused: true}
	p := stated(1440, 700)
	for at := time.Duration(0); at < 2*time.Minute; at += 10 * time.Second {
		p.Heard(at, p.Grant(at, poll), refusal)
		if p.State(at, 0, 1).Learnt {
			t.Fatalf("learnt after %v", at)
		}
	}
	at := 2 * time.Minute
	p.Heard(at, p.Grant(at, poll), refusal)
	if s := p.State(at, 0, 1); !s.Learnt || s.Limit != 700 || !s.UsedUp {
		t.Fatalf("got %+v, want a limit of 700", s)
	}
	w := p.Wait(at, post)
	if w < 10*time.Minute || w > 20*time.Minute {
		t.Errorf("a wait of %v for the next try", w)
	}
	if at += w; p.Wait(at, poll) > 0 {
		t.Errorf("no request despite the limit after %v", w)
	}
	if p.Heard(at, p.Grant(at, poll), refusal); p.Wait(at, poll) == 0 {
		t.Error("two requests despite the limit")
	}
	other := *p
	if p.Heard(at, p.Grant(at, poll), statement(701)); p.State(at, 0, 1).Learnt {
		t.Error("the limit outlasts a request that was served")
	}
	if s := other.State(halfDay+time.Minute, 0, 1); s.Learnt || s.UsedUp || s.Limit != 1440 {
		t.Errorf("the limit outlasts the day: %+v", s)
	}
}

// TestRefusalsThatAreNoLimit teach no limit.
func TestRefusalsThatAreNoLimit(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer func(i int) daily.Answer
	}{
		{"some requests pass", func(i int) daily.Answer {
			if i%10 == 9 {
				return statement(700)
			}
			return daily.Answer{Total: 700, Refused: true}
		}},
		{"usage moves on", func(i int) daily.Answer { return daily.Answer{Total: 700 + i/10, Refused: true} }},
		{"one device", func(int) daily.Answer { return daily.Answer{Total: 700} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := stated(1440, 700)
			for i := range 100 {
				at := time.Duration(i) * 10 * time.Second
				p.Heard(at, p.Grant(at, poll), tt.answer(i))
				if p.State(at, 0, 1).Learnt {
					t.Fatal("learnt at", at)
				}
			}
		})
	}
	p := daily.New(1440, start) // the API states no usage at all
	for at := time.Duration(0); at < time.Hour; at += 10 * time.Second {
		p.Heard(at, p.Grant(at, poll), daily.Answer{Refused: true})
		if p.State(at, 0, 1).Learnt {
			t.Fatal("learnt an estimate at", at)
		}
	}
}

// TestFirstRequest: a process may begin at any time of day. Its first request goes out, which shows the usage
// and the time.
func TestFirstRequest(t *testing.T) {
	for _, limit := range []int{1, 5, 1000} {
		for _, now := range []time.Duration{0, halfDay - time.Second, halfDay - 1, halfDay} {
			p := daily.New(limit, start.Add(now))
			p.SetShare(0, 1./3)
			if w := p.Wait(0, poll); w > 0 {
				t.Errorf("limit %d, %v after noon: the first request waits %v", limit, now, w)
			}
			p.Return(0, p.Grant(0, poll))
			if w := p.Wait(0, poll); w > 0 {
				t.Errorf("limit %d, %v after noon: the first request waits %v because it was not sent at once", limit, now, w)
			}
			p.Grant(0, poll)
			if w := p.Wait(0, poll); limit == 1 && w == 0 {
				t.Error("two requests with a limit of 1")
			}
			if w := p.Wait(0, post); w > time.Minute && now > halfDay/2 && now < halfDay {
				t.Errorf("limit %d, %v after noon: without an answer the second request waits %v", limit, now, w)
			}
		}
	}
}

// TestMidnight: a new day has the whole limit, by the API's clock and not by this machine's.
func TestMidnight(t *testing.T) {
	for _, ahead := range []time.Duration{0, 5 * time.Hour, -5 * time.Hour, 30 * time.Hour, -20 * 24 * time.Hour} {
		t.Run(ahead.String(), func(t *testing.T) {
			p := daily.New(1000, start.Add(ahead))
			a := statement(1000)
			a.Date = start
			p.Heard(0, p.Grant(0, poll), a)
			if w := p.Wait(0, poll); w != halfDay {
				t.Errorf("a wait of %v, want 12h", w)
			}
			if p.Wait(halfDay-time.Second, poll) == 0 {
				t.Error("a request a second before midnight")
			}
			s := p.State(halfDay, 0, 1)
			if w := p.Wait(halfDay, poll); w > 0 || math.Abs(s.Rate-1000./1440) > 1e-6 {
				t.Errorf("at midnight a wait of %v and a rate of %v", w, s.Rate)
			}
		})
	}
}

// TestUsageOfYesterday: an API that resets its count a little late does not use up the new day.
func TestUsageOfYesterday(t *testing.T) {
	p := stated(1000, 1000)
	p.Heard(halfDay+time.Second, p.Grant(halfDay+time.Second, poll), statement(1001))
	if p.State(halfDay+time.Minute, 0, 1).UsedUp {
		t.Error("yesterday's usage counts today")
	}
	at := halfDay + 2*time.Hour
	p.Heard(at, p.Grant(at, poll), statement(1001))
	if !p.State(at, 0, 1).UsedUp {
		t.Error("today's usage does not count")
	}
}

// TestAnswersOutOfOrder: an answer to an older request does not lower the usage.
func TestAnswersOutOfOrder(t *testing.T) {
	p := stated(1000, 10)
	older, newer := p.Grant(0, poll), p.Grant(0, poll)
	p.Heard(0, newer, statement(500))
	before := p.State(0, 0, 1).Rate
	if p.Heard(0, older, statement(499)); p.State(0, 0, 1).Rate != before {
		t.Error("an older answer changed the usage")
	}
	if p.Heard(0, p.Grant(0, poll), statement(20)); p.State(0, 0, 1).Rate <= before {
		t.Error("a lower usage of a newer answer does not count")
	}
}

// TestLearnsUsageOfRequests: posts with a usage of 20 are paced by that, and polls by theirs.
func TestLearnsUsageOfRequests(t *testing.T) {
	p := stated(100_000, 40_000)
	for range 50 {
		p.Heard(0, p.Grant(0, post), daily.Answer{Usage: 20, Total: 40_000, Served: true})
	}
	polls, posts := p.State(0, poll.Kind, 1).Rate, p.State(0, post.Kind, 1).Rate
	if ratio := polls / posts; ratio < 19 || ratio > 21 {
		t.Errorf("%v polls or %v posts a minute", polls, posts)
	}
	p.Heard(0, p.Grant(0, post), daily.Answer{Usage: math.MaxInt32, Total: 40_000, Served: true})
	if got := p.State(0, post.Kind, 1).Rate; math.Abs(got-posts) > posts/100 {
		t.Errorf("a usage beyond the limit changed the rate from %v to %v", posts, got)
	}
}

// account is an API with usage, for several replicas.
type account struct {
	limit, used int
}

func (a *account) serve(usage int) daily.Answer {
	a.used += usage
	return daily.Answer{Usage: usage, Total: a.used, Served: true}
}

// TestNeverMoreThanTheLimit checks random days, with any requests and restarts of replicas and any other use of
// the account: the usage stays within the limit.
func TestNeverMoreThanTheLimit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		replicas := rapid.IntRange(1, 4).Draw(t, "replicas")
		api := &account{limit: rapid.IntRange(10, 300).Draw(t, "limit")}
		api.used = rapid.IntRange(0, api.limit).Draw(t, "used")
		dearest := rapid.IntRange(1, 3).Draw(t, "dearest")
		paces, began := make([]*daily.Pace, replicas), make([]time.Duration, replicas)
		restart := func(i int, at time.Duration) {
			paces[i], began[i] = daily.New(api.limit, start.Add(at)), at
			paces[i].SetShare(0, 1/float64(replicas))
			// The first request of a process has to find out.
			paces[i].Heard(0, paces[i].Grant(0, poll), daily.Answer{Usage: dearest, Total: max(api.used, 1), Served: true})
		}
		for i := range replicas {
			restart(i, 0)
		}
		sent := 0
		for at := time.Duration(0); at < halfDay-time.Second; {
			i := rapid.IntRange(0, replicas-1).Draw(t, "replica")
			r := poll
			if rapid.Bool().Draw(t, "is post") {
				r = post
			}
			switch step := rapid.IntRange(0, 20).Draw(t, "step"); {
			case step == 0:
				restart(i, at)
			case step == 1 && api.used < api.limit/2:
				api.used += api.limit / 10 // not by the bridge
			case step < 12:
				at += time.Duration(rapid.Int64Range(int64(time.Second), int64(time.Hour)).Draw(t, "time"))
			}
			for n := rapid.IntRange(1, 40).Draw(t, "requests"); n > 0 && at < halfDay-time.Second; n-- {
				if paces[i].Wait(at-began[i], r) > 0 {
					break
				}
				sent++
				paces[i].Heard(at-began[i], paces[i].Grant(at-began[i], r), api.serve(1+sent%dearest))
			}
		}
		// Each replica learns of the others' last requests only with its next one, which may cost more than usual.
		if slack := dearest*replicas - 1; api.used > api.limit+slack {
			t.Fatalf("%d used of %d, %d requests", api.used, api.limit, sent)
		}
	})
}

// TestEvenUse: one process that always has polls to send uses the rest of the day evenly, after any earlier use.
func TestEvenUse(t *testing.T) {
	for _, used := range []int{0, 300, 700} {
		for _, usage := range []int{1, 3} {
			t.Run(fmt.Sprint(used, usage), func(t *testing.T) {
				const limit = 1440
				api := &account{limit: limit, used: max(used, 1)}
				p := stated(limit, api.used)
				hourly := make([]int, 12)
				for at := time.Duration(0); at < halfDay; {
					if w := p.Wait(at, poll); w > 0 {
						at += w
						continue
					}
					p.Heard(at, p.Grant(at, poll), api.serve(usage))
					hourly[min(at/time.Hour, 11)] += usage
				}
				even := float64(limit-used) / 12
				for hour, n := range hourly {
					room := 0.15 * even
					if hour == 0 { // the first requests may be ahead, and their usage has to be learnt
						room *= 3
					}
					if math.Abs(float64(n)-even) > room {
						t.Errorf("hour %d: %d used, want %.0f: %v", hour, n, even, hourly)
					}
				}
				if api.used > limit || api.used < limit-limit/100 {
					t.Errorf("%d used of %d", api.used, limit)
				}
			})
		}
	}
}

func BenchmarkPace(b *testing.B) {
	p := stated(1e9, 1)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		at := time.Duration(i) * time.Microsecond
		p.Wait(at, poll)
		p.Heard(at, p.Grant(at, poll), statement(i))
	}
}

// TestLateStart: a process that starts late in the day takes most of the usage for used. Once the API states how little
// it is, requests go out as if that had been known.
func TestLateStart(t *testing.T) {
	p := daily.New(500, time.Date(2026, 1, 2, 18, 5, 0, 0, time.UTC))
	request := daily.Request{Kind: 1}
	if wait := p.Wait(0, request); wait > 0 {
		t.Fatalf("the first request waits %v", wait)
	}
	g := p.Grant(0, request)
	p.Heard(time.Second, g, daily.Answer{Usage: 1, Total: 1, Date: time.Date(2026, 1, 2, 12, 0, 1, 0, time.UTC), Served: true})
	for i := range 4 {
		if wait := p.Wait(time.Second, request); wait > 0 {
			t.Fatalf("request %d waits %v", i+2, wait)
		}
		p.Grant(time.Second, request)
	}
}
