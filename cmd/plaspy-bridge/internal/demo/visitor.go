package demo

import (
	"context"
	"encoding/json"
	"math"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/bridge/sim/account"
	"plaspy-bridge/publisher"
)

const (
	visitorID    = "gateway-1"
	visitorEvery = 5 * time.Second
)

// visitor is a tracker that does not report to the API. Its gateway publishes its
// locations on the inbound subject, and the bridge posts them.
type visitor struct {
	subjects publisher.Subjects
	next     time.Time
	turn     float64 // radians along the circle
}

// position is a location as the visitor's gateway publishes it.
type position struct {
	DateTime  string  `json:"dateTime"`
	Latitude  float64 `json:"latitude"`
	Longitude float64 `json:"longitude"`
	Speed     float64 `json:"speed"`
	Course    float64 `json:"course"`
}

// admit makes the visitor known to the API, as a device that has never
// reported.
func (g *visitor) admit(api *sim.Server) {
	api.SetLocation(visitorID, nil)
	api.SetDevice(visitorID, func(d *account.DeviceInfo) { d.Name = "Boat behind MQTT" })
}

// tick publishes a location every visitorEvery.
func (g *visitor) tick(ctx context.Context, nc *nats.Conn, js jetstream.JetStream, now time.Time) {
	if now.Before(g.next) {
		return
	}
	g.next = now.Add(visitorEvery)
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if _, err := js.Stream(ctx, g.subjects.Inbound()); err != nil { // not there yet
		g.next = now
		return
	}
	body, err := json.Marshal(g.at(now))
	if err == nil {
		err = nc.Publish(g.subjects.InLocation(visitorID), body)
	}
	if err == nil {
		g.turn += 0.2
	}
}

// at returns the visitor's position: it circles clockwise on a lake west of the
// simulated city.
func (g *visitor) at(now time.Time) position {
	north, east := math.Sincos(math.Pi/2 - g.turn)
	return position{
		DateTime: now.UTC().Format(time.RFC3339Nano),
		Latitude: math.Round((4.65+0.004*north)*1e6) / 1e6, Longitude: math.Round((-74.25+0.004*east)*1e6) / 1e6,
		Speed: 64, Course: math.Mod(90+g.turn*180/math.Pi, 360),
	}
}
