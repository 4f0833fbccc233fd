package outbound

import (
	"slices"
	"time"

	"github.com/cenkalti/backoff/v4"

	"plaspy-bridge/bridge/outbound/quota"
	"plaspy-bridge/bridge/trace"
	"plaspy-bridge/publisher"
)

// device is what the pool knows of one device. The first block is guarded by
// the pool's mutex; the rest belongs to whoever made the device busy, and to
// the holder of the mutex while it is not.
type device struct {
	id     string
	token  string
	name   string
	busy   bool // polled, or its chain is on its way
	listed bool // in the API's list, active, and chosen by the filters
	active bool // listed and this replica's: in the schedule
	// touched: it is in the pool's list of those that have something to show.
	touched bool
	// doubtful: its state has to be read from the stream before it is polled,
	// because somebody else may have published.
	doubtful bool

	title string // name, as it was when the device became busy

	// What the stream holds.
	seq      uint64 // of its last location; 0: none there
	have     bool   // hash and what follows are set
	hash     uint64
	fields   fields // to name what changes
	fixTime  time.Time
	lat, lon float32 // only shown: a metre or two do not matter
	speed    float32
	input    int8
	silent   bool
	raised   []string
	alertSeq map[string]uint64 // sequence of the last message by alert token
	// When the bridge first saw the last fix, by its own clock.
	changedAt time.Time
	// Edges that the last location announces and the stream does not hold.
	owed    []edge
	owedFix *fix
	// Where the next request for the alert history starts, if not at the last fix.
	historyFrom time.Time
	seenAlerts  map[alertKey]struct{} // with BRIDGE_ALERT_HISTORY only

	failures   int
	backoff    *backoff.ExponentialBackOff // while failing
	complaint  string                      // what was last logged about it
	gapTrouble *gapTrouble                 // while what lies in its gaps cannot be read; nil: it can
	day        quota.Day

	// What the present turn comes to; release puts it into recent, which is
	// guarded by the pool's mutex.
	turn   decision
	span   trace.Span // of the present turn
	recent [keptDecisions]decision
	turns  int
}

// edge is an alert that appears or goes.
type edge struct {
	alert string
	state string
}

// alertKey is what makes two alerts of the history the same.
type alertKey struct {
	alert string
	at    int64 // Unix nanoseconds
}

// silentAlert is the name of the alert that the bridge itself raises.
const silentAlert = "silent"

// remember takes a fix as what the stream holds.
func (d *device) remember(f *fix, seq uint64) {
	d.seq, d.have, d.hash, d.fixTime, d.fields = seq, true, f.hash, f.time, f.fields
	d.lat, d.lon = float32(f.lat), float32(f.lon)
	d.speed, d.input = float32(f.speed), f.input
	if f.alertsKnown {
		d.raised = slices.Clone(f.alerts)
	}
}

// forget takes it that the stream holds nothing of the device.
func (d *device) forget() {
	d.seq, d.have, d.silent, d.raised, d.alertSeq, d.owed, d.owedFix = 0, false, false, nil, nil, nil, nil
}

// saw notes that an alert of that time is published, where anybody asks.
func (d *device) saw(alert string, at time.Time) {
	if d.seenAlerts != nil {
		d.seenAlerts[alertKey{alert, at.UnixNano()}] = struct{}{}
	}
}

func (d *device) setAlertSeq(token string, seq uint64) {
	if d.alertSeq == nil {
		d.alertSeq = make(map[string]uint64)
	}
	d.alertSeq[token] = seq
}

// edgesTo are what a fix raises and clears after a fix that had raised these
// alerts, in a stable order: raised in the fix's own, then cleared.
func edgesTo(f *fix, raised []string, silent bool) []edge {
	var list []edge
	if f.alertsKnown {
		for _, a := range f.alerts {
			if a != silentAlert && !slices.Contains(raised, a) {
				list = append(list, edge{a, publisher.Raised})
			}
		}
		for _, a := range raised {
			if a != silentAlert && !slices.Contains(f.alerts, a) {
				list = append(list, edge{a, publisher.Cleared})
			}
		}
	}
	if silent {
		list = append(list, edge{silentAlert, publisher.Cleared})
	}
	return list
}
