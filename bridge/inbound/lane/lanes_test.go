package lane

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestHealthy: thousands of devices that always fail take no more than their share
// of the posts from the healthy ones, and none of them waits for another.
func TestHealthy(t *testing.T) {
	const bad, good, workers, turns = 5000, 20, 16, 200
	l := New(Limits{
		Workers: workers, Messages: 2048, Bytes: 32 << 20, MaxAge: 24 * time.Hour, Initial: 500 * time.Millisecond, Max: time.Minute,
		Patience: 5 * time.Second, Pause: time.Second, Recent: 64,
	})
	now := start
	var stream []Message
	deliver := func(name string) {
		m := Message{Seq: uint64(len(stream) + 1), At: now, Lane: name, Size: 100, Content: 1}
		stream = append(stream, m)
		l.Deliver(&m)
	}
	read := func(a Action) {
		for _, m := range stream[a.From-1 : a.To] {
			if m.Lane == a.Lane {
				l.Loaded(now, a, []*Message{&m}, m.Seq, nil)
				return
			}
		}
		l.Loaded(now, a, nil, a.To, nil)
	}
	for i := range bad {
		deliver("bad" + strconv.Itoa(i))
	}
	posts := map[bool]int{}
	var under []Action
	// Each post takes 10 ms; 16 are under way.
	turn := func() {
		for _, a := range under {
			fails := a.Kind == Post && a.Message.Lane[0] == 'b'
			switch {
			case fails:
				l.Answered(now, a.Message, Answer{Jitter: 0.5})
			default:
				l.Answered(now, a.Message, Answer{Verdict: &Verdict{Posted: true, Sent: true}})
			}
		}
		under = under[:0]
		for n := 0; n < workers; {
			a, ok := l.Next(now)
			if !ok {
				break
			}
			switch a.Kind {
			case Post:
				posts[a.Message.Lane[0] == 'b']++
				n++
				under = append(under, a)
			case Read:
				read(a)
			default:
				l.Recorded(now, a.Message, nil)
			}
		}
		now = now.Add(10 * time.Millisecond)
	}
	for range bad/workers + 50 {
		turn() // the first try of each
	}
	for range 10 * turns * workers / good { // more than they can post
		for i := range good {
			deliver("good" + strconv.Itoa(i))
		}
	}
	clear(posts)
	for range turns {
		turn()
	}
	t.Logf("%d posts of healthy devices, %d without others; %d tries of failing ones", posts[false], turns*workers, posts[true])
	if posts[false] < turns*workers*9/10 {
		t.Errorf("%d posts of healthy devices, want nine tenths of %d", posts[false], turns*workers)
	}
	if posts[true] == 0 {
		t.Error("the failing devices were not tried at all")
	}
	if s := l.Status(); s.InMemory > 2048 {
		t.Errorf("%d messages in memory", s.InMemory)
	}
}

// TestProbesOfTheUntried: while the API is down, a device with an untried message is probed before those that
// failed, however many they are.
func TestProbesOfTheUntried(t *testing.T) {
	const bad = 40
	l := New(Limits{Workers: 4, Messages: 2048, Bytes: 32 << 20, MaxAge: time.Hour, Initial: 500 * time.Millisecond, Max: time.Minute, Patience: 5 * time.Second, Pause: time.Second, Recent: 64})
	now := start
	fails := func(a Action) { l.Answered(now, a.Message, Answer{Jitter: 0.5, Cause: Outage}) }
	for i := range bad {
		l.Deliver(&Message{Seq: uint64(i + 1), At: now, Lane: "bad" + strconv.Itoa(i), Size: 100, Content: 1})
		a, ok := l.Next(now)
		if !ok || a.Kind != Post {
			t.Fatalf("got %v, %v; want a post", a, ok)
		}
		fails(a)
	}
	now = now.Add(time.Second)
	l.Down(now.Add(time.Second))
	if a, ok := l.Next(now); ok {
		t.Fatalf("got %v, want no post while the API is down", a)
	}
	if !l.WantsMessages() {
		t.Error("messages of other devices are not wanted once many have failed")
	}
	l.Deliver(&Message{Seq: bad + 1, At: now, Lane: "good", Size: 100, Content: 1})
	if a, ok := l.Next(now); ok {
		t.Fatalf("got %v, want no post while the API is down", a)
	}
	now = now.Add(time.Second)
	for _, want := range []string{"good", "bad", "bad"} {
		a, ok := l.Next(now)
		if !ok || a.Kind != Post || !strings.HasPrefix(a.Message.Lane, want) {
			t.Fatalf("got %v, %v; want a post to a device called %s", a, ok, want)
		}
		fails(a)
		l.Down(now.Add(time.Second))
		now = now.Add(time.Second)
	}
}

// TestMemory: a deep backlog of one device takes as little memory as a short one.
func TestMemory(t *testing.T) {
	l := New(small(8, 100))
	for seq := range uint64(1_000_000) {
		l.Deliver(&Message{Seq: seq + 1, At: start, Lane: "a", Size: 10, Content: 1})
	}
	s := l.Status()
	if s.InMemory > 100/4 || s.Lanes != 1 || cap(l.lanes["a"].rest) > 200 {
		t.Errorf("%+v", s)
	}
	if got := l.Backlog(1_000_000); got > 4*100 {
		t.Errorf("backlog %d", got)
	}
}

// TestBacklog checks that only messages waiting for their turn count, not those that
// wait for a device or for the API.
func TestBacklog(t *testing.T) {
	m := func() []*Message { return []*Message{{}, {}} }
	l := New(small(8, 100))
	for name, n := range map[string]*lane{
		"a": {state: queued}, "b": {state: busy}, "c": {state: waiting, left: 90}, "d": {state: parked},
	} {
		n.head, n.rest = &Message{}, m()
		l.lanes[name] = n
	}
	for pending, want := range map[int]int{0: 6, 12: 6, 110: 14, 1000: 24} {
		if got := l.Backlog(pending); got != want {
			t.Errorf("%d pending: backlog %d, want %d", pending, got, want)
		}
	}
}

// TestDelay: the backoff doubles, ends at its limit, and begins again for another
// cause.
func TestDelay(t *testing.T) {
	var r retry
	for i, want := range []time.Duration{1, 2, 4, 8, 10, 10} {
		if got := r.delay(Answer{Jitter: 0.5}, time.Second, 10*time.Second); got != want*time.Second {
			t.Errorf("wait %d is %v, want %ds", i, got, want)
		}
	}
	for range 100 {
		r.delay(Answer{}, time.Second, time.Minute)
	}
	if got := r.delay(Answer{Jitter: 1}, time.Second, time.Minute); got != time.Minute {
		t.Errorf("%v after many tries", got)
	}
	if got := r.delay(Answer{Cause: Throttled, AtLeast: time.Hour}, time.Second, time.Minute); got != time.Hour {
		t.Errorf("%v although the API asks for an hour", got)
	}
	if got := r.delay(Answer{Cause: Auth, Jitter: 0.5}, time.Second, time.Minute); got != time.Second {
		t.Errorf("%v for a new cause", got)
	}
}

// BenchmarkLanes measures the post of one message in the lanes alone.
func BenchmarkLanes(b *testing.B) {
	l := New(small(16, 2048))
	now, seq := start, uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		seq++
		l.Deliver(&Message{Seq: seq, At: now, Lane: "device", Size: 10, Content: 1})
		a, _ := l.Next(now)
		l.Answered(now, a.Message, Answer{Verdict: &Verdict{Posted: true, Sent: true}})
		a, _ = l.Next(now)
		l.Recorded(now, a.Message, nil)
	}
}

// TestProbesTakePlaces: while the API is down, probes of lanes in trouble that are not
// answered leave a place for the other lanes, and no worker is woken for nothing.
func TestProbesTakePlaces(t *testing.T) {
	l, now, seq := New(small(2, 10)), start, uint64(0)
	next := func() (string, bool) {
		a, ok := l.Next(now)
		if !ok {
			return "", false
		}
		return a.Message.Lane, true
	}
	deliver := func(name string) *Message {
		seq++
		m := &Message{Seq: seq, At: now, Lane: name, Size: 10, Content: 1}
		l.Deliver(m)
		return m
	}
	for _, name := range []string{"a", "b"} {
		m := deliver(name)
		next()
		l.Answered(now, m, Answer{Jitter: 0.5})
	}
	now = now.Add(time.Minute)
	l.Down(now.Add(time.Second))
	if lane, ok := next(); ok {
		t.Errorf("%s is posted before the first probe is due", lane)
	}
	now = now.Add(time.Second)
	if _, ok := next(); !ok {
		t.Error("no probe")
	}
	now = now.Add(time.Minute) // it is not answered
	if lane, ok := next(); ok {
		t.Errorf("%s takes the last place", lane)
	}
	if at := l.Wake(); !at.After(now) {
		t.Errorf("wakes at %v, it is %v", at, now)
	}
	l.Down(now.Add(time.Second))
	deliver("c")
	deliver("d")
	if lane, ok := next(); ok {
		t.Errorf("%s is posted before the next probe is due", lane)
	}
	now = now.Add(time.Second)
	if lane, ok := next(); lane != "c" {
		t.Errorf("the next probe is of %q, %v, want the first lane that was not tried", lane, ok)
	}
	now = now.Add(time.Minute)
	if lane, ok := next(); ok {
		t.Errorf("%s is posted without a place", lane)
	}
	if at := l.Wake(); !at.After(now) {
		t.Errorf("wakes at %v, it is %v", at, now)
	}
}

// TestStopRecordsBehind: a stop records the outcome of a message that was sent, also if the
// server brought back a message before it, which needs no post.
func TestStopRecordsBehind(t *testing.T) {
	l, now := New(small(2, 10)), start
	message := func(seq uint64) *Message {
		return &Message{Seq: seq, At: now, Lane: "a", Size: 10, Content: 1}
	}
	second := message(2)
	l.Deliver(second)
	l.Next(now)
	l.Answered(now, second, Answer{Verdict: &Verdict{Posted: true, Sent: true}})
	l.Reset() // the stream is read again, with the first message
	l.Deliver(message(1))
	l.Deliver(message(2))
	now = now.Add(10 * time.Minute)
	a, _ := l.Next(now)
	if a.Kind != GiveUp {
		t.Fatalf("got %+v, want the first message given up", a)
	}
	l.Answered(now, a.Message, Answer{Verdict: &Verdict{}})
	l.Stop()
	var recorded []uint64
	for range 2 {
		if l.Quiet() {
			t.Errorf("quiet after %v was recorded", recorded)
		}
		a, _ = l.Next(now)
		if a.Kind != Record {
			t.Fatalf("got %+v, want a record", a)
		}
		l.Recorded(now, a.Message, nil)
		recorded = append(recorded, a.Message.Seq)
	}
	if !l.Quiet() || recorded[0] != 1 || recorded[1] != 2 {
		t.Errorf("quiet %v, recorded %v", l.Quiet(), recorded)
	}
}
