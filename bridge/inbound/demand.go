package inbound

import (
	"math"
	"sync"
	"time"
)

const (
	// demandCell and demandCells make the minute over which tries are counted.
	demandCell  = 5 * time.Second
	demandCells = 12
	// demandSettles is how fast the estimate follows: what comes and is gone
	// within a second or two is no reason to divide the budget anew.
	demandSettles = 10 * time.Second
)

// demand estimates how many posts a minute a consumer would make if the budget
// let it. It is safe for concurrent use.
type demand struct {
	mu    sync.Mutex
	cells [demandCells]int // tries, each of demandCell
	cell  int64            // the newest one's number since 1970
	level float64          // the estimate ...
	at    time.Time        // ... as of then; zero: there is none
}

// tried counts a post that was sent.
func (d *demand) tried(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.turn(now)
	d.cells[d.cell%demandCells]++
}

// turn clears the cells whose minute is over. d.mu is held.
func (d *demand) turn(now time.Time) {
	cell := now.UnixNano() / int64(demandCell)
	if back := d.cell - cell; back > 0 && back < demandCells {
		return // the clock was set back a little
	}
	if cell < d.cell || cell-d.cell >= demandCells {
		d.cells = [demandCells]int{}
		d.cell = cell
		return
	}
	for d.cell < cell {
		d.cell++
		d.cells[d.cell%demandCells] = 0
	}
}

// wanted gives the estimate: what was tried in the last minute, and what is ready
// to be and waits for nothing but the budget.
func (d *demand) wanted(now time.Time, backlog int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.turn(now)
	for _, n := range d.cells {
		backlog += n
	}
	if d.at.IsZero() || now.Before(d.at) {
		d.at = now
	}
	d.level += (float64(backlog) - d.level) * (1 - math.Exp(-float64(now.Sub(d.at))/float64(demandSettles)))
	d.at = now
	return int(d.level + 0.5)
}

// Wanted tells how many posts a minute this replica would make if the budget let
// it, smoothed; 0 while it does not consume. starved tells that posts wait for
// the budget: otherwise something else bounds them, and what is ready counts
// for nothing. It is meant to be called every second or so.
func (c *Consumer) Wanted(starved bool) int {
	c.mu.Lock()
	d := c.current
	c.mu.Unlock()
	backlog := 0
	if starved && d != nil {
		backlog = d.backlog(int(c.pending.Load()))
	}
	return c.demand.wanted(time.Now(), backlog)
}

// unseen bounds how many messages are taken to be like each one in hand: a device
// that fails may have any number in the stream that nobody waits for.
const unseen = 4

// backlog estimates how many messages wait for nothing but their turn: those in
// hand for sure, and of the stream's what does not belong to a lane that waits.
func (d *desk) backlog(pending int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	ready := 0
	for _, l := range d.lanes {
		if l.state == laneReady || l.state == laneBusy {
			ready += len(l.hand)
		} else {
			pending -= len(l.hand) + l.handed
		}
	}
	return max(ready, min(pending, unseen*ready))
}
