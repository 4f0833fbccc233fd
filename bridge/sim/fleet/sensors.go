package fleet

import (
	"math/rand/v2"
	"time"
)

// sensors are the readings beside the position, which change with time and
// with the vehicle's movement.
type sensors struct {
	flags   uint8
	at      int64   // the last reading
	battery float64 // percent, of the tracker itself
	fuel    float64 // percent
	temp    float64 // °C in the cargo bay
	tank    float64 // km on a full tank
	odo     float64 // metres at the last reading

	sosUntil, doorUntil, unpluggedUntil int64
}

func newSensors(r *rand.Rand, c Cadence) sensors {
	s := sensors{
		battery: 12 + 88*r.Float64(),
		fuel:    10 + 90*r.Float64(),
		temp:    2 + 7*r.Float64(),
		tank:    350 + 400*r.Float64(),
	}
	if c.Ignition {
		s.flags |= hasIgnition
	}
	if r.IntN(2) == 0 {
		s.flags |= hasFuel
	}
	if r.IntN(5) == 0 {
		s.flags |= hasTemp
	}
	if r.IntN(4) == 0 {
		s.flags |= escapes
	}
	return s
}

// Mean times between the faults of a device.
const (
	sosEvery       = 12 * time.Hour
	doorEvery      = time.Hour
	unpluggedEvery = 40 * time.Hour
)

// read brings the sensors to a fix's time and writes them into it.
func (s *sensors) read(d *Device, f *Fix, now instant) {
	r := d.rng
	dt := time.Duration(max(0, f.measured-s.at))
	km := max(0, now.odometer-s.odo) / 1000
	s.at, s.odo = f.measured, now.odometer

	s.battery += dt.Minutes() * 0.5 // charged by the engine
	if !d.car.moving {
		s.battery -= dt.Minutes() * 0.52
	}
	s.battery = min(100, max(3, s.battery))
	if s.fuel -= 100 * km / s.tank; s.fuel < 6 {
		s.fuel = 95 // filled up
	}
	s.temp += 0.15*r.NormFloat64() - 0.02*(s.temp-4)
	started(r, &s.sosUntil, f.measured, dt, sosEvery, 4*time.Minute)
	started(r, &s.doorUntil, f.measured, dt, doorEvery, 3*time.Minute)
	started(r, &s.unpluggedUntil, f.measured, dt, unpluggedEvery, 10*time.Minute)

	f.battery, f.fuel, f.temp = uint8(s.battery), uint8(s.fuel), int16(s.temp*10)
	f.satellite, f.signal = uint8(7+r.IntN(8)), uint8(9+r.IntN(20))
	f.flags |= s.flags
	if d.car.moving {
		f.rpm = int16(780 + 28*now.speed + 60*r.Float64())
		f.inputs |= 1
	}
	if f.measured < s.doorUntil && now.speed == 0 {
		f.inputs |= 2
	}
	f.alerts = s.alerts(d, f, now)
}

// started draws whether something began during the last dt, and until when it
// lasts.
func started(r *rand.Rand, until *int64, now int64, dt, every, lasts time.Duration) {
	// Drawn every time, so that the number of draws does not depend on the state.
	x := r.Float64()
	if now >= *until && x < min(0.2, float64(dt)/float64(every)) {
		*until = now + int64(lasts)
	}
}

func (s *sensors) alerts(d *Device, f *Fix, now instant) Alert {
	var a Alert
	for _, c := range [...]struct {
		holds bool
		alert Alert
	}{
		{now.speed > now.limit+8, SpeedLimit},
		{now.harshBrk, HarshBraking},
		{now.harshAcc, HarshAcceleration},
		{f.measured < s.sosUntil, SOSButton},
		{f.battery < 20, LowBattery},
		{d.car.moving && now.near.forbidden(), ForbiddenArea},
		{now.idle > 30, IdleTime},
		{!d.car.moving && f.measured-d.car.since > int64(4*time.Hour), NoMovementTime},
		{f.flags&hasFuel != 0 && f.fuel < 15, FuelLessThan},
		{f.flags&hasTemp != 0 && f.temp > 80, TemperatureGreaterThan},
		{f.inputs&2 != 0, Sensor1On},
		{f.measured < s.unpluggedUntil, GPSUnplugged},
	} {
		if c.holds {
			a |= c.alert
		}
	}
	return a
}
