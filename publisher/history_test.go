package publisher

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

var day0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestCompare(t *testing.T) {
	at := func(d time.Duration) time.Time { return day0.Add(d) }
	// Ten events, one a minute, kept for an hour.
	old := Mark{Created: day0, FirstSeq: 1, LastSeq: 10, Origin: 1, FirstTime: at(time.Minute), LastTime: at(10 * time.Minute), Now: at(10 * time.Minute), MaxAge: time.Hour}
	with := func(set func(*Mark)) Mark {
		m := old
		m.Now = at(11 * time.Minute)
		set(&m)
		return m
	}
	for _, tt := range []struct {
		name  string
		now   Mark
		acked uint64
		want  Verdict
	}{
		{"nothing happened", with(func(*Mark) {}), 10, Intact},
		{"one more", with(func(m *Mark) { m.LastSeq = 11 }), 10, Intact},
		{"one that was acknowledged is missing", with(func(*Mark) {}), 11, Replaced},
		{"an older copy", with(func(m *Mark) { m.LastSeq = 9 }), 0, Replaced},
		{"made again", with(func(m *Mark) { m.Created = at(time.Second); m.LastSeq = 20 }), 10, Replaced},
		{"the first one aged out", with(func(m *Mark) { m.FirstSeq, m.Now = 2, at(62*time.Minute) }), 10, Intact},
		{"the first one is gone and was young", with(func(m *Mark) { m.FirstSeq = 2 }), 10, Purged},
		{"all are gone, and only the first was old", with(func(m *Mark) { m.FirstSeq, m.Now = 11, at(62*time.Minute) }), 10, Purged},
		{"all aged out", with(func(m *Mark) { m.FirstSeq, m.Now = 11, at(80*time.Minute) }), 10, Intact},
		{"one in the middle was deleted", with(func(m *Mark) { m.Deleted = 1 }), 10, Purged},
		{"one in the middle was deleted, of a limited stream", with(func(m *Mark) { m.Deleted, m.Limited = 1, true }), 10, Intact},
		{"the oldest made room", with(func(m *Mark) { m.FirstSeq, m.Limited = 5, true }), 10, Intact},
		{"events stay for ever, and one is gone", with(func(m *Mark) { m.FirstSeq, m.MaxAge, m.Now = 2, 0, at(1000*time.Hour) }), 10, Purged},
	} {
		if got := compare(old, tt.now, tt.acked); got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
		}
	}
	empty := Mark{Created: day0, FirstSeq: 1, Now: at(0), MaxAge: time.Hour}
	if got := compare(empty, Mark{Created: day0, FirstSeq: 3, LastSeq: 2, Now: at(time.Minute), MaxAge: time.Hour}, 2); got != Purged {
		t.Errorf("an empty stream took two and lost them: got %d", got)
	}
	if got := compare(empty, Mark{Created: day0, FirstSeq: 3, LastSeq: 2, Now: at(2 * time.Hour), MaxAge: time.Hour}, 2); got != Intact {
		t.Errorf("two were stored and aged out: got %d", got)
	}
}

// streamModel is a stream as a server keeps it: messages by sequence, and the
// acknowledged ones.
type streamModel struct {
	created time.Time
	now     time.Time
	maxAge  time.Duration
	next    uint64
	msgs    []modelMsg // in order
	lastAt  time.Time
	lives   int
}

type modelMsg struct {
	seq uint64
	at  time.Time
}

func (s *streamModel) mark() Mark {
	m := Mark{Created: s.created, LastSeq: s.next - 1, FirstSeq: s.next, Origin: 1, Now: s.now, MaxAge: s.maxAge, LastTime: s.lastAt}
	if len(s.msgs) > 0 {
		m.FirstSeq, m.FirstTime = s.msgs[0].seq, s.msgs[0].at
		m.Deleted = int(s.next-m.FirstSeq) - len(s.msgs)
	}
	return m
}

func (s *streamModel) age() {
	for len(s.msgs) > 0 && s.now.Sub(s.msgs[0].at) > s.maxAge {
		s.msgs = s.msgs[1:]
	}
}

// TestLife compares the verdicts on random histories of a stream with its events. A
// stream that only grows and ages is intact, and the loss of a young event is noticed.
func TestLife(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &streamModel{created: day0, now: day0, maxAge: time.Hour, next: 1}
		var l history
		if v := l.observe(s.mark(), 0); v != Intact {
			t.Fatalf("first look: %d", v)
		}
		copied, backed := *s, false
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			want, young := Intact, true
			fresh := func(at time.Time) bool { return s.now.Sub(at) < s.maxAge-ageSlack }
			switch rapid.IntRange(0, 8).Draw(t, "act") {
			case 0, 1, 2:
				for range rapid.IntRange(1, 5).Draw(t, "events") {
					s.msgs = append(s.msgs, modelMsg{s.next, s.now})
					l.acknowledged(s.next)
					s.next++
					s.lastAt = s.now
				}
			case 3, 4:
				s.now = s.now.Add(time.Duration(rapid.IntRange(1, 90).Draw(t, "minutes")) * time.Minute)
				s.age()
			case 5: // a purge of the oldest
				if n := rapid.IntRange(0, len(s.msgs)).Draw(t, "purged"); n > 0 {
					young = fresh(s.msgs[0].at) || n == len(s.msgs) && fresh(s.lastAt)
					s.msgs = s.msgs[n:]
					want = Purged
				}
			case 6: // one is deleted from between others
				if len(s.msgs) > 2 {
					at := rapid.IntRange(1, len(s.msgs)-2).Draw(t, "deleted")
					s.msgs = append(append([]modelMsg(nil), s.msgs[:at]...), s.msgs[at+1:]...)
					want = Purged
				}
			case 7: // made again
				s.lives++
				s.created, s.next, s.msgs = day0.Add(time.Duration(s.lives)*time.Nanosecond), 1, nil
				want = Replaced
				backed = false
			case 8: // restored from a copy, at the same moment
				if !backed {
					copied, backed = *s, true
					copied.msgs = append([]modelMsg(nil), s.msgs...)
					break
				}
				if copied.created.Equal(s.created) && copied.next < s.next {
					now := s.now
					*s = copied
					s.msgs = append([]modelMsg(nil), copied.msgs...)
					s.now = now
					s.age()
					want = Replaced
				}
				backed = false
			}
			got := l.observe(s.mark(), l.ackedSeq())
			if !young {
				continue // the purged events were about to age out, which looks the same
			}
			if got != want {
				t.Fatalf("got %d, want %d: %+v", got, want, s.mark())
			}
			if got == Purged && l.origin(s.mark()).AgedOut(s.next-1) {
				t.Fatalf("purged events count as aged out")
			}
		}
	})
}
