package track

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"plaspy-bridge/bridge/plaspy/rawjson"
)

func TestChangedFields(t *testing.T) {
	ignored := []string{"inactiveSeconds", "attributes2"}
	many := func(n, v int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `,"f%03d":%d`, i, v)
		}
		return "{" + b.String()[1:] + "}"
	}
	for _, tc := range []struct {
		name, from, to string
		want           []string
	}{
		{"one", `{"speed":1,"course":2}`, `{"speed":3,"course":2}`, []string{"speed"}},
		{"spelling alone", `{"speed":1}`, `{"speed":1.0}`, []string{"speed"}},
		{"in the new one's order", `{"a":1,"b":1,"c":1}`, `{"c":2,"a":2,"b":1}`, []string{"c", "a"}},
		{"new and gone", `{"a":1,"gone":1}`, `{"a":1,"new":null}`, []string{"new", "gone"}},
		{"inside an object", `{"attributes":{"driver":"A","doors":{"left":1,"right":1}}}`, `{"attributes":{"driver":"B","doors":{"left":1,"right":2}}}`, []string{"attributes.driver", "attributes.doors.right"}},
		{"below that", `{"a":{"b":{"c":{"d":1}}}}`, `{"a":{"b":{"c":{"d":2}}}}`, []string{"a.b.c"}},
		{"an array is one field", `{"inputs":[true,false]}`, `{"inputs":[true,true]}`, []string{"inputs"}},
		{"an object becomes empty", `{"a":{"b":1}}`, `{"a":{}}`, []string{"a", "a.b"}},
		{"escaped name", `{"speed":1}`, `{"\u0073peed":2}`, []string{"speed"}},
		{"ignored", `{"inactiveSeconds":1,"speed":1}`, `{"inactiveSeconds":2,"speed":2}`, []string{"speed"}},
		{"ignored object", `{"attributes2":{"x":1},"speed":1}`, `{"attributes2":{"x":2},"speed":2}`, []string{"speed"}},
		{"twice", `{"a":1,"a":1}`, `{"a":1,"a":2}`, []string{"a"}},
		{"exchanged", `{"a":1,"b":2}`, `{"a":2,"b":1}`, []string{"a", "b"}},
		{"too many to name", many(20, 1), many(20, 2), []string{"f000", "f001", "f002", "f003", "f004", "f005", "f006", "f007", More}},
		{"more fields than are distinguished", many(200, 1), many(199, 1)[:len(many(199, 1))-1] + `,"f199":2}`, []string{More}},
		{"nothing", `{"a":1}`, `{"a":1}`, nil},
		{"long name", `{"` + strings.Repeat("é", 100) + `":1}`, `{"` + strings.Repeat("é", 100) + `":2}`, []string{strings.Repeat("é", 30) + More}},
		{"line feed in a name", `{"a\nb":1,"c":1}`, `{"a\nb":2,"c":1}`, []string{"a?b"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			if text := fieldsOf([]byte(tc.from)).Changed(fieldsOf([]byte(tc.to)), ignored); text != "" {
				got = strings.Split(text, "\n")
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// FuzzFields: for any answer of the API, the kept and reported fields are bounded.
func FuzzFields(f *testing.F) {
	f.Add([]byte(`{"speed":1,"a":{"b":2}}`), []byte(`{"a":{"b":3}}`))
	f.Add([]byte(`{"\u0000\n.":{"":{}}}`), []byte(`{"…":1}`))
	f.Fuzz(func(t *testing.T, from, to []byte) {
		for _, raw := range [][]byte{from, to} {
			if _, err := rawjson.Hash(raw, nil); err != nil || !utf8.Valid(raw) {
				return
			}
		}
		a, b := fieldsOf(from), fieldsOf(to)
		if len(a.sums) > sumSize*(maxFields+1) || strings.Count(a.names.Value(), "\n") != len(a.sums)/sumSize {
			t.Fatalf("%d bytes of sums for names %q", len(a.sums), a.names.Value())
		}
		if again := a.Changed(fieldsOf(from), nil); again != "" {
			t.Fatalf("differs from itself in %q", again)
		}
		text := a.Changed(b, nil)
		list := strings.Split(text, "\n")
		if len(list) > maxFieldsNamed+1 || !utf8.ValidString(text) {
			t.Fatalf("reported %q", text)
		}
		for _, name := range list {
			if len(name) > maxFieldName {
				t.Fatalf("name of %d bytes: %q", len(name), name)
			}
		}
	})
}

// TestAlertNames: a value that is not a name is left out, unless it may stand for one.
func TestAlertNames(t *testing.T) {
	for _, tc := range []struct {
		alerts string
		want   []string
		known  bool
	}{
		{`null`, nil, true},
		{`[]`, nil, true},
		{`["b","a","b"]`, []string{"b", "a"}, true},
		{`[null,"a","",null,"b"]`, []string{"a", "b"}, true},
		{`[null]`, nil, true},
		{`["a",{"name":"b"}]`, nil, false},
		{`["a",7]`, nil, false},
		{`"a"`, nil, false},
	} {
		f, err := parser.Fix([]byte(`{"dateTime":"2026-01-02T03:00:00Z","latitude":4.7,"longitude":-74.1,"alerts":`+tc.alerts+`}`), 1)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(f.Alerts, tc.want) || f.AlertsKnown != tc.known {
			t.Errorf("%s: got %q, known %v", tc.alerts, f.Alerts, f.AlertsKnown)
		}
	}
}

func BenchmarkFields(b *testing.B) {
	from, to := []byte(wide(1, 1)), []byte(wide(2, 1))
	before := fieldsOf(from)
	b.Run("read", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			fieldsOf(to)
		}
	})
	after := fieldsOf(to)
	b.Run("compare", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if before.Changed(after, nil) != "dateTime" {
				b.Fatal("wrong field")
			}
		}
	})
}

// wide is a location with every documented field.
func wide(second, v int) string {
	return fmt.Sprintf(`{"dateTime":"2026-01-02T03:00:%02dZ","latitude":4.7,"longitude":-74.1,"v":%d,`, second, v) +
		`"speed":42.5,"course":181,"battery":87,"fuel":55,"fuel2":0,"temperature":21.5,"temperature2":-3.25,"sensorTime1":1200,` +
		`"sensorTime2":0,"inactiveSeconds":12,"rpm":1850,"milleage":120345.7,"warningTexts":["Battery low"],"alertTexts":["Speeding"],` +
		`"alerts":["SOS"],"warnings":["LowBattery"],"hasCriticalAlert":false,"inputs":[true,false,false,true],"outputs":[false,false],` +
		`"attributes":{"driver":"A. Person","trailer":"TR-118","route":"north 7"},"accessoriesAttributes":[{"serial":"0012","kind":"door"}]}`
}
