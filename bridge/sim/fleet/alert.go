package fleet

import (
	"math/bits"
	"strconv"
)

// Alert is a set of alert names, one bit each.
type Alert uint16

// The alerts that the model raises, named as the API names them.
const (
	SpeedLimit Alert = 1 << iota
	HarshBraking
	HarshAcceleration
	SOSButton
	LowBattery
	ForbiddenArea
	IdleTime
	NoMovementTime
	FuelLessThan
	TemperatureGreaterThan
	Sensor1On
	GPSUnplugged

	critical = SOSButton | ForbiddenArea | GPSUnplugged
)

var alertNames = [...]string{
	"SpeedLimit", "HarshBraking", "HarshAcceleration", "SOSButton", "LowBattery", "ForbiddenArea",
	"IdleTime", "NoMovementTime", "FuelLessThan", "TemperatureGreaterThan", "Sensor1On", "GPSUnplugged",
}

// Each calls f for every alert in the set, in a fixed order.
func (a Alert) Each(f func(one Alert)) {
	for a != 0 {
		one := a & -a
		f(one)
		a &^= one
	}
}

// String is the API's name of a single alert.
func (a Alert) String() string {
	if i := bits.TrailingZeros16(uint16(a)); i < len(alertNames) {
		return alertNames[i]
	}
	return ""
}

// Critical reports whether any alert of the set is critical.
func (a Alert) Critical() bool { return a&critical != 0 }

// Text is the readable text of one alert of the fix.
func (f *Fix) Text(one Alert) string { return string(f.appendText(nil, one)) }

// appendText writes the readable text of one alert of a fix.
func (f *Fix) appendText(dst []byte, one Alert) []byte {
	switch one {
	case SpeedLimit:
		dst = append(dst, "Speeding: "...)
		dst = strconv.AppendInt(dst, int64(f.speed)/10, 10)
		return append(dst, " km/h"...)
	case HarshBraking:
		return append(dst, "Harsh braking"...)
	case HarshAcceleration:
		return append(dst, "Harsh acceleration"...)
	case SOSButton:
		return append(dst, "SOS button pressed"...)
	case LowBattery:
		dst = append(dst, "Low battery: "...)
		dst = strconv.AppendUint(dst, uint64(f.battery), 10)
		return append(dst, '%')
	case ForbiddenArea:
		return append(dst, "Inside a forbidden area"...)
	case IdleTime:
		return append(dst, "Engine idling"...)
	case NoMovementTime:
		return append(dst, "No movement for more than 4 hours"...)
	case FuelLessThan:
		dst = append(dst, "Fuel below 15%: "...)
		dst = strconv.AppendUint(dst, uint64(f.fuel), 10)
		return append(dst, '%')
	case TemperatureGreaterThan:
		return append(dst, "Cargo temperature above 8 °C"...)
	case Sensor1On:
		return append(dst, "Cargo door open"...)
	case GPSUnplugged:
		return append(dst, "Tracker disconnected from the vehicle battery"...)
	}
	return dst
}
