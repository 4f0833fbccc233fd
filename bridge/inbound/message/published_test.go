package message

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/plaspy/rawjson"
)

// publishable reports whether the bridge publishes a location that is polled.
func publishable(location []byte) bool {
	var at, lat, lon []byte
	err := rawjson.Members(location, func(key, value []byte) bool {
		switch string(key) {
		case "dateTime":
			at = value
		case "latitude":
			lat = value
		case "longitude":
			lon = value
		}
		return true
	})
	text, ok := rawjson.Unquote(at)
	_, timeErr := plaspy.ParseTime(string(text))
	within := func(raw []byte, limit float64) bool {
		v, err := strconv.ParseFloat(string(raw), 64)
		return err == nil && math.Abs(v) <= limit
	}
	return err == nil && ok && timeErr == nil && within(lat, 90) && within(lon, 180)
}

// timeSpelling writes an instant in one of many ways, a few of them wrong.
func timeSpelling(t *rapid.T) string {
	at := time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "seconds"), rapid.Int64Range(0, 1e9-1).Draw(t, "nanos")).UTC()
	pick := func(name string, of ...string) string { return rapid.SampledFrom(of).Draw(t, name) }
	date := at.Format(pick("date", "2006-01-02", "20060102", "2006-1-2"))
	clock := at.Format(pick("clock", "15:04:05", "150405", "15:04", "1504", "15:04:05.000", "15:04:05,000000000", "15:04:60"))
	zone := pick("zone", "", "Z", "z", "+05:30", "-0500", "+05", "+24", "UTC")
	all := date + pick("between", "T", "t", " ", "") + clock + zone
	return pick("around", "", " ", "\t") + pick("all", all, all, all, date) + pick("after", "", " ")
}

// numberSpelling writes degrees in one of many ways, a few of them out of range.
func numberSpelling(t *rapid.T, name string, limit float64) string {
	v := rapid.Float64Range(-limit*1.1, limit*1.1).Draw(t, name)
	switch rapid.IntRange(0, 5).Draw(t, name+" spelling") {
	case 0:
		return strconv.FormatFloat(v, 'e', -1, 64)
	case 1:
		return strconv.FormatFloat(v, 'f', 3, 64) + "000"
	case 2:
		return strconv.Itoa(int(v))
	case 3:
		return rapid.SampledFrom([]string{"-0", "0e5", "1E1", "0.9e+2", "-90.000", "1e-400", "1e400", `"4.7"`, "null", "true"}).Draw(t, name+" odd")
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}

// TestPublishedImpliesAccepted: an event that was published is accepted as it is,
// however the API spells its times and degrees.
func TestPublishedImpliesAccepted(t *testing.T) {
	accepted := 0
	rapid.Check(t, func(t *rapid.T) {
		escape := rapid.SampledFrom([]string{"", `\u0020`}).Draw(t, "escape")
		lat := numberSpelling(t, "latitude", 90)
		location := fmt.Sprintf(`{"dateTime":"%s%s","latitude":%s,"longitude":%s,"alerts":["a"]`, escape, strings.ReplaceAll(timeSpelling(t), "\t", `\t`), lat, numberSpelling(t, "longitude", 180))
		if rapid.IntRange(0, 9).Draw(t, "twice") == 0 {
			location = strings.Replace(location, `"alerts"`, `"latitude":`+numberSpelling(t, "latitude again", 90)+`,"alerts"`, 1)
		}
		location += "}"
		f, err := Reader{}.Read(Location, "d", []byte(`{"deviceId":"d","name":"n","observedAt":"2026-01-02T03:04:05.678Z","backfilled":true,"location":`+location+`}`))
		if want := publishable([]byte(location)); want != (err == nil) {
			t.Fatalf("published: %t, accepted: %v: %s", want, err, location)
		}
		if err != nil {
			return
		}
		accepted++
		if !strings.Contains(string(f.Body), `"location":`+location) {
			t.Fatalf("the location %s became %s", location, f.Body)
		}
		at, _, _ := strings.Cut(strings.TrimPrefix(location, `{"dateTime":`), `,"latitude"`)
		alert := `{"deviceId":"d","alert":"A","state":"cleared","critical":true,"texts":[],"dateTime":` + at + `,"latitude":1,"longitude":2,"source":"history","observedAt":"2026-01-02T03:04:05.678Z"}`
		if a, err := (Reader{}).Read(Alert, "d", []byte(alert)); err != nil || string(a.Body) != `{"from":`+at+`,"to":`+at+`,"alertName":"A"}` {
			t.Fatalf("alert at %s: %v %s", at, err, a.Body)
		}
	})
	if accepted == 0 {
		t.Error("no location was accepted: the test shows nothing")
	}
}
