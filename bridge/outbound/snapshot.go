package outbound

import (
	"slices"
	"time"
)

// Glance is what the pool knows of one device at one moment, for whoever shows
// it to people.
type Glance struct {
	ID   string
	Name string // as the API's list has it
	// Gone: it is not polled here any more. Nothing else but the id is set.
	Gone bool
	// Busy: it is being polled, or what it showed is on its way to the stream.
	// Nothing else but id and name is set; once that is over it has changed.
	Busy bool

	Fix      bool      // the bridge knows a fix; what follows up to Alerts is its
	FixTime  time.Time // by the device's clock
	Seen     time.Time // when the bridge first saw it, by its own clock
	Lat, Lon float32   // degrees, WGS 84
	Speed    float32   // km/h, or the account's unit; NaN: not told
	Alerts   []string  // raised now, the bridge's own silent among them

	Polled   time.Time // when the last poll was over; zero: not yet
	Result   string    // of that poll, for people
	Detail   string    // its error, or empty
	Failures int       // polls in a row that failed
	Next     time.Time // when the next poll is due; zero: not known
	Reason   string    // why then, one word
}

// glances is how many devices are looked at while the pool's mutex is held:
// some hundred microseconds, of which nobody who waits for it takes notice.
const glances = 64

// Changed calls f with each device that was polled, or changed otherwise, since
// the call before; the first time with every device, and until then nothing is
// remembered for it. It is for one caller; f runs on its goroutine and may take
// its time. A device that has changed again meanwhile is told next time.
func (p *Pool) Changed(f func(Glance)) {
	p.mu.Lock()
	if !p.watched {
		p.watched = true
		for _, d := range p.byID {
			p.touch(d)
		}
	}
	list := p.touched
	p.touched = nil
	p.mu.Unlock()
	seen := make([]Glance, 0, min(glances, len(list)))
	for part := range slices.Chunk(list, glances) {
		seen = seen[:0]
		now := time.Now()
		p.mu.Lock()
		for _, d := range part {
			d.touched = false
			seen = append(seen, p.glance(now, d))
		}
		p.mu.Unlock()
		for _, g := range seen {
			f(g)
		}
	}
}

// touch notes that a device has something to show. It runs under the mutex.
func (p *Pool) touch(d *device) {
	if p.watched && !d.touched {
		d.touched = true
		p.touched = append(p.touched, d)
	}
}

// glance runs under the mutex.
func (p *Pool) glance(now time.Time, d *device) Glance {
	g := Glance{ID: d.id, Name: d.name, Gone: !d.active, Busy: d.active && d.busy}
	if g.Gone || g.Busy {
		return g
	}
	if d.have {
		g.Fix, g.FixTime, g.Seen = true, d.fixTime, d.changedAt
		g.Lat, g.Lon, g.Speed = d.lat, d.lon, d.speed
		g.Alerts = slices.Clone(d.raised) // its own is changed in place
		if d.silent {
			g.Alerts = append(g.Alerts, silentAlert)
		}
	}
	if d.turns > 0 {
		last := &d.recent[(d.turns-1)%keptDecisions]
		g.Polled, g.Result, g.Detail = last.when(), last.result.String(), last.said().detail
	}
	g.Failures = d.failures
	next, why := p.policy.Due(now, d.id)
	g.Next, g.Reason = next, why.String()
	return g
}
