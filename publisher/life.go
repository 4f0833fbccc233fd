package publisher

import (
	"sync"
	"sync/atomic"
	"time"
)

// Mark describes the events stream at one moment, as far as it decides whether
// the stream still holds what it acknowledged.
type Mark struct {
	Created  time.Time
	FirstSeq uint64
	LastSeq  uint64
	// Origin is the first sequence that can have aged out: 1, unless the stream
	// took the place of one that was deleted, or was purged.
	Origin uint64

	FirstTime time.Time     // of the first message
	LastTime  time.Time     // of the last message
	Deleted   int           // messages that are gone from between others
	Now       time.Time     // by the server's clock
	MaxAge    time.Duration // 0 means that events stay for ever
	// Limited says that the stream also drops events that are not old, because
	// an operator limited their number or size.
	Limited bool
}

// ageSlack is how much younger than its limit an event that aged out may seem:
// the bucket took it a moment after the stream did.
const ageSlack = 5 * time.Second

// old reports whether a message that the stream took at an instant has left it
// because of its age.
func (m Mark) old(at time.Time) bool { return m.MaxAge > 0 && m.Now.Sub(at) > m.MaxAge-ageSlack }

// AgedOut reports whether a message with this sequence was in the stream and has
// left it. 0 stands for a message that had done so when it was read. One with a
// lower sequence than the stream's first was in another stream.
func (m Mark) AgedOut(seq uint64) bool { return seq == 0 || seq >= m.Origin && seq < m.FirstSeq }

// Whole reports whether the stream holds everything that it ever took.
func (m Mark) Whole() bool { return m.FirstSeq <= max(m.Origin, 1) }

// Verdict is what two marks of a stream say about what it lost between them.
type Verdict int

// Verdicts of [Compare].
const (
	// Intact means that nothing is missing but events that aged out.
	Intact Verdict = iota
	// Purged means that events were deleted that were not old.
	Purged
	// Replaced means that the stream was deleted and made again, or was restored
	// from an older copy: it does not hold what it acknowledged.
	Replaced
)

// Compare says what a stream lost between two marks. acked is the highest
// sequence that it had acknowledged when the later mark was asked for.
func Compare(old, now Mark, acked uint64) Verdict {
	switch {
	case !now.Created.Equal(old.Created), now.LastSeq < max(acked, old.LastSeq):
		return Replaced
	case now.Limited:
		return Intact
	case now.Deleted > old.Deleted:
		return Purged
	case old.LastSeq < max(old.FirstSeq, 1): // it held nothing that could be old
		if now.FirstSeq > old.LastSeq+1 && !now.old(old.Now) {
			return Purged
		}
		return Intact
	case now.FirstSeq > old.FirstSeq && !now.old(old.FirstTime), now.FirstSeq > old.LastSeq && !now.old(old.LastTime):
		return Purged
	}
	return Intact
}

// life is what this process knows of the events stream's past.
type life struct {
	mu    sync.Mutex
	known bool   // mark is set
	mark  Mark   // of the last observation
	acked uint64 // the highest sequence that was acknowledged
	lost  uint64 // what the stream does not hold up to here did not age out

	silent atomic.Bool // the bucket of the alert silent is there
}

// acknowledged notes a sequence that the stream acknowledged.
func (l *life) acknowledged(seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked = max(l.acked, seq)
}

func (l *life) ackedSeq() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acked
}

// origin raises a mark's origin above what was lost.
func (l *life) origin(m Mark) Mark {
	l.mu.Lock()
	defer l.mu.Unlock()
	m.Origin = max(m.Origin, l.lost+1)
	return m
}

// observe compares a mark with the one before it. acked is ackedSeq from before
// the mark was asked for.
func (l *life) observe(m Mark, acked uint64) Verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	verdict := Intact
	if l.known {
		verdict = Compare(l.mark, m, acked)
	}
	switch verdict {
	case Purged:
		l.lost = m.LastSeq
	case Replaced:
		l.lost, l.acked = 0, m.LastSeq
	}
	l.known, l.mark = true, m
	return verdict
}
