package inbound

import (
	"math"
	"sync"
	"time"
)

const (
	// loadCell and loadCells make the minute over which tries are counted.
	loadCell  = 5 * time.Second
	loadCells = 12
	// loadSettles is how fast the estimate follows: what comes and is gone
	// within a second or two is no reason to divide the budget anew.
	loadSettles = 10 * time.Second
)

// load estimates how many posts a minute a consumer would make if the budget
// let it. It is safe for concurrent use.
type load struct {
	mu    sync.Mutex
	cells [loadCells]int // tries, each of loadCell
	cell  int64          // the newest one's number since 1970
	level float64        // the estimate ...
	at    time.Time      // ... as of then; zero: there is none
}

// tried counts a post that was sent.
func (d *load) tried(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.turn(now)
	d.cells[d.cell%loadCells]++
}

// turn clears the cells whose minute is over. d.mu is held.
func (d *load) turn(now time.Time) {
	cell := now.UnixNano() / int64(loadCell)
	if back := d.cell - cell; back > 0 && back < loadCells {
		return // the clock was set back a little
	}
	if cell < d.cell || cell-d.cell >= loadCells {
		d.cells = [loadCells]int{}
		d.cell = cell
		return
	}
	for d.cell < cell {
		d.cell++
		d.cells[d.cell%loadCells] = 0
	}
}

// wanted gives the estimate: what was tried in the last minute, and what is ready
// to be and waits for nothing but the budget.
func (d *load) wanted(now time.Time, backlog int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.turn(now)
	for _, n := range d.cells {
		backlog += n
	}
	if d.at.IsZero() || now.Before(d.at) {
		d.at = now
	}
	d.level += (float64(backlog) - d.level) * (1 - math.Exp(-float64(now.Sub(d.at))/float64(loadSettles)))
	d.at = now
	return int(d.level + 0.5)
}

// Wanted estimates how many posts a minute this replica would make if the budget
// had room for them, smoothed; 0 while it does not post. starved reports that posts
// wait for the budget: otherwise something else bounds them, and the backlog does
// not count. It is meant to be called every second or so.
func (c *Consumer) Wanted(starved bool) int {
	backlog := 0
	if starved {
		c.mu.Lock()
		backlog = c.lanes.Backlog(int(c.pending.Load()))
		c.mu.Unlock()
	}
	return c.load.wanted(time.Now(), backlog)
}
