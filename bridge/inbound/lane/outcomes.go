package lane

import "time"

// outcome is a verdict with the time of its message, which distinguishes it from a
// message of the same sequence in a recreated stream.
type outcome struct {
	at      time.Time
	verdict *Verdict
	seen    bool // its message was delivered since the last reset
}

// outcomes holds the verdicts that could not be recorded before a reset, and the last
// ones that were recorded.
type outcomes struct {
	kept   map[uint64]outcome // to be recorded
	recent map[uint64]outcome // recorded
	ring   []uint64           // the sequences in recent
	next   int
}

func newOutcomes(recent int) outcomes {
	return outcomes{kept: make(map[uint64]outcome), recent: make(map[uint64]outcome), ring: make([]uint64, recent)}
}

// restore keeps the verdict of a message that leaves the memory, unless it can be
// made again.
func (o *outcomes) restore(m *Message) {
	if m.verdict != nil && m.verdict.Sent && !m.again {
		o.kept[m.Seq] = outcome{m.At, m.verdict, true}
	}
}

// delivered notes that a message is in the stream.
func (o *outcomes) delivered(m *Message) {
	if k, ok := o.kept[m.Seq]; ok {
		if k.seen = k.at.Equal(m.At); !k.seen {
			delete(o.kept, m.Seq)
			return
		}
		o.kept[m.Seq] = k
	}
}

// recall returns the verdict of a message that is delivered again. It must not be posted
// again: its verdict is recorded once more, because a server that forgot the
// removal may have forgotten the result, too.
func (o *outcomes) recall(m *Message) (v *Verdict, again bool) {
	if k, ok := o.kept[m.Seq]; ok && k.at.Equal(m.At) {
		delete(o.kept, m.Seq)
		return k.verdict, false
	}
	if r, ok := o.recent[m.Seq]; ok && r.at.Equal(m.At) {
		return r.verdict, true
	}
	return nil, false
}

// recorded remembers the verdict of a message that was sent. The last Limits.Recent
// verdicts are remembered.
func (o *outcomes) recorded(m *Message) {
	delete(o.kept, m.Seq)
	if m.verdict != nil && m.verdict.Sent {
		o.remember(m.Seq, outcome{at: m.At, verdict: m.verdict})
	}
}

func (o *outcomes) remember(seq uint64, r outcome) {
	if len(o.ring) == 0 {
		return
	}
	if _, known := o.recent[seq]; !known {
		delete(o.recent, o.ring[o.next])
		o.ring[o.next] = seq
		o.next = (o.next + 1) % len(o.ring)
	}
	o.recent[seq] = r
}

func (o *outcomes) restart() {
	for seq, k := range o.kept {
		k.seen = false
		o.kept[seq] = k
	}
}

// caughtUp drops the kept verdicts of messages that are no longer in the stream: they
// were recorded by another replica, or the answer to the removal was lost.
func (o *outcomes) caughtUp() {
	for seq, k := range o.kept {
		if !k.seen {
			delete(o.kept, seq)
			o.remember(seq, k)
		}
	}
}
