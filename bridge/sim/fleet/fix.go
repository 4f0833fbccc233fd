package fleet

import (
	"strconv"
	"time"
)

// Fix is one report of a tracker: small and without pointers, so that a
// history of thousands costs the garbage collector nothing.
type Fix struct {
	measured, visible int64 // nanoseconds since the Unix epoch, true time
	stamped           int64 // by the tracker's own clock

	lat, lon  int32  // millionths of a degree
	odometer  uint32 // metres
	speed     int16  // tenths of km/h
	course    int16  // tenths of a degree
	temp      int16  // tenths of a degree Celsius
	rpm       int16
	battery   uint8 // percent
	fuel      uint8 // percent
	satellite uint8
	signal    uint8 // of the mobile network, 0 to 31
	inputs    uint8 // bit 0 ignition, bit 1 door
	flags     uint8
	alerts    Alert
	near      crossing
}

// Flags of a fix: the features of the device, and the faults of this report.
const (
	hasIgnition = 1 << iota
	hasFuel
	hasTemp
	wasBuffered
	lowSignal
	escapes // writes non-ASCII letters as escapes
)

// Time is the fix's own time, by the tracker's clock, UTC.
func (f *Fix) Time() time.Time { return time.Unix(0, f.stamped).UTC() }

// Measured is when the fix was made, in true time.
func (f *Fix) Measured() time.Time { return time.Unix(0, f.measured).UTC() }

// Visible is when the API began to show the fix, or something newer.
func (f *Fix) Visible() time.Time { return time.Unix(0, f.visible).UTC() }

// Position is in degrees, WGS 84.
func (f *Fix) Position() (lat, lon float64) {
	return float64(f.lat) / 1e6, float64(f.lon) / 1e6
}

// SpeedKMH is the tracker's speed in km/h.
func (f *Fix) SpeedKMH() float64 { return float64(f.speed) / 10 }

// CourseDegrees is clockwise from north, 0 to 360.
func (f *Fix) CourseDegrees() float64 { return float64(f.course) / 10 }

// Alerts are those that hold at this fix.
func (f *Fix) Alerts() Alert { return f.alerts }

// dateTime is how the API writes times: ISO 8601 with milliseconds.
const dateTime = "2006-01-02T15:04:05.000Z"

// InactiveSeconds is the value of that field at a time: since the fix was
// measured, never negative.
func (f *Fix) InactiveSeconds(now time.Time) int64 {
	return max(0, (now.UnixNano()-f.measured)/int64(time.Second))
}

// AppendJSON appends the fix as the API's lastLocation object, up to and
// without the value of inactiveSeconds, and then the rest, and returns where
// the value belongs. It alone differs from one answer to the next.
func (f *Fix) AppendJSON(dst []byte) (_ []byte, hole int) {
	dst = append(dst, `{"dateTime":"`...)
	dst = f.Time().AppendFormat(dst, dateTime)
	dst = append(dst, `","latitude":`...)
	dst = appendFixed(dst, int64(f.lat), 6)
	dst = append(dst, `,"longitude":`...)
	dst = appendFixed(dst, int64(f.lon), 6)
	dst = append(dst, `,"speed":`...)
	dst = appendTenths(dst, f.speed)
	dst = append(dst, `,"course":`...)
	dst = appendTenths(dst, f.course)
	dst = append(dst, `,"battery":`...)
	dst = strconv.AppendUint(dst, uint64(f.battery), 10)
	if f.flags&hasFuel != 0 {
		dst = append(dst, `,"fuel":`...)
		dst = strconv.AppendUint(dst, uint64(f.fuel), 10)
	}
	if f.flags&hasTemp != 0 {
		dst = append(dst, `,"temperature":`...)
		dst = appendTenths(dst, f.temp)
	}
	dst = append(dst, `,"sensorTime1":`...)
	dst = strconv.AppendUint(dst, uint64(f.odometer%7200), 10)
	dst = append(dst, `,"inactiveSeconds":`...)
	hole = len(dst)
	dst = append(dst, `,"rpm":`...)
	dst = strconv.AppendInt(dst, int64(f.rpm), 10)
	dst = append(dst, `,"milleage":`...)
	dst = appendFixed(dst, int64(f.odometer), 3)
	dst = f.appendStates(dst)
	dst = f.appendAttributes(dst)
	return append(dst, '}'), hole
}

func (f *Fix) appendStates(dst []byte) []byte {
	dst = append(dst, `,"warningTexts":[`...)
	if f.flags&wasBuffered != 0 {
		dst = append(dst, `"Sent late from the tracker's memory"`...)
	}
	dst = append(dst, `],"alertTexts":[`...)
	f.alerts.Each(func(one Alert) {
		dst = append(dst, '"')
		dst = f.appendText(dst, one)
		dst = append(dst, `",`...)
	})
	dst = trimComma(dst)
	dst = append(dst, `],"alerts":[`...)
	f.alerts.Each(func(one Alert) {
		dst = append(dst, '"')
		dst = append(dst, one.String()...)
		dst = append(dst, `",`...)
	})
	dst = trimComma(dst)
	dst = append(dst, `],"warnings":[`...)
	if f.flags&wasBuffered != 0 {
		dst = append(dst, `"Offline"`...)
	}
	dst = append(dst, `],"hasCriticalAlert":`...)
	return strconv.AppendBool(dst, f.alerts.Critical())
}

func (f *Fix) appendAttributes(dst []byte) []byte {
	dst = append(dst, `,"attributes":{`...)
	if f.flags&hasIgnition != 0 {
		dst = append(dst, `"ignition":"`...)
		dst = append(dst, onOff(f.inputs&1 != 0)...)
		dst = append(dst, `",`...)
	}
	dst = append(dst, `"gsmSignal":"`...)
	dst = strconv.AppendUint(dst, uint64(f.signal), 10)
	dst = append(dst, `","satellites":"`...)
	dst = strconv.AppendUint(dst, uint64(f.satellite), 10)
	dst = append(dst, `","hdop":"`...)
	dst = appendTenths(dst, 24-int16(f.satellite))
	dst = append(dst, `","externalVoltage":"`...)
	dst = appendTenths(dst, 124+int16(f.inputs&1)*15)
	dst = append(dst, `","fixType":"3D","protocol":"GT06","operator":"Claro","cell":"732-101-`...)
	dst = strconv.AppendInt(dst, 4100+int64(f.near.col), 10)
	dst = append(dst, `","altitude":"`...)
	dst = strconv.AppendInt(dst, 2548+int64(f.near.row), 10)
	dst = append(dst, `","address":"Calle `...)
	dst = strconv.AppendInt(dst, int64(f.near.row)+1, 10)
	dst = append(dst, " con Carrera "...)
	dst = strconv.AppendInt(dst, int64(columns-f.near.col), 10)
	if f.flags&escapes != 0 {
		dst = append(dst, `, Bogot\u00e1"}`...)
	} else {
		dst = append(dst, `, Bogotá"}`...)
	}
	dst = append(dst, `,"accessoriesAttributes":[`...)
	if f.flags&hasTemp != 0 {
		dst = append(dst, `{"name":"Probe 1","type":"temperature","battery":"91"}`...)
	}
	dst = append(dst, `],"inputs":[`...)
	if f.flags&hasIgnition != 0 {
		dst = strconv.AppendBool(dst, f.inputs&1 != 0)
		dst = append(dst, ',')
	}
	dst = strconv.AppendBool(dst, f.inputs&2 != 0)
	return append(dst, `,false],"outputs":[false,false]`...)
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

func trimComma(dst []byte) []byte {
	if dst[len(dst)-1] == ',' {
		return dst[:len(dst)-1]
	}
	return dst
}

// appendTenths writes a number of tenths as a decimal: 0 as 0, 425 as 42.5.
func appendTenths(dst []byte, n int16) []byte {
	if n < 0 {
		dst = append(dst, '-')
		n = -n
	}
	dst = strconv.AppendInt(dst, int64(n/10), 10)
	if n%10 != 0 {
		dst = append(dst, '.', byte('0'+n%10))
	}
	return dst
}

// appendFixed writes n divided by ten to the places, all places written.
func appendFixed(dst []byte, n int64, places int) []byte {
	if n < 0 {
		dst = append(dst, '-')
		n = -n
	}
	var digits [24]byte
	i := len(digits)
	for ; places >= 0 || n > 0; places-- {
		i--
		digits[i] = byte('0' + n%10)
		n /= 10
		if places == 1 {
			i--
			digits[i] = '.'
		}
	}
	return append(dst, digits[i:]...)
}
