package rawjson_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"plaspy-bridge/bridge/plaspy/rawjson"
)

type pair struct{ Key, Value string }

func members(t testing.TB, text string) ([]pair, error) {
	t.Helper()
	var got []pair
	err := rawjson.Members([]byte(text), func(k, v []byte) bool {
		got = append(got, pair{string(k), string(v)})
		return true
	})
	return got, err
}

func TestMembers(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       []pair
	}{
		{"empty", ` { } `, nil},
		{"flat", `{"a":1,"b":"x"}`, []pair{{"a", "1"}, {"b", `"x"`}}},
		{"white space", "\t{ \"a\" :\r\n 1 , \"b\" : [ 1 , 2 ] }\n", []pair{{"a", "1"}, {"b", "[ 1 , 2 ]"}}},
		{"nested same key", `{"a":{"a":{"a":2}},"b":{}}`, []pair{{"a", `{"a":{"a":2}}`}, {"b", `{}`}}},
		{"brackets in strings", `{"a":"}{][\",","b":["]"]}`, []pair{{"a", `"}{][\","`}, {"b", `["]"]`}}},
		{"escaped key", `{"a\u0062\n\"\ud83d\ude00\ud83d":null}`, []pair{{"ab\n\"😀\ufffd", "null"}}},
		{"duplicates", `{"a":1,"a":2}`, []pair{{"a", "1"}, {"a", "2"}}},
		{"number spellings", `{"a":-0,"b":1.50,"c":1E+3,"d":0e-0}`, []pair{{"a", "-0"}, {"b", "1.50"}, {"c", "1E+3"}, {"d", "0e-0"}}},
		{"literals", `{"a":true,"b":false,"c":null}`, []pair{{"a", "true"}, {"b", "false"}, {"c", "null"}}},
		{"empty key", `{"":""}`, []pair{{"", `""`}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := members(t, tc.text)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(got, tc.want); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestMembersRefuses(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		offset     int
	}{
		{"nothing", "", 0},
		{"white space", "  ", 2},
		{"array", "[]", 0},
		{"html", "<html>", 0},
		{"unfinished", `{"a":1`, 6},
		{"no value", `{"a":}`, 5},
		{"no colon", `{"a" 1}`, 5},
		{"no name", `{1:1}`, 1},
		{"trailing comma", `{"a":1,}`, 7},
		{"leading comma", `{,"a":1}`, 1},
		{"two values", `{} {}`, 3},
		{"open string", `{"a":"x`, 7},
		{"open escape", `{"a":"\`, 7},
		{"bad escape", `{"a":"\x"}`, 7},
		{"bad hex", `{"a":"\u00g0"}`, 10},
		{"control character", "{\"a\":\"\n\"}", 6},
		{"leading zero", `{"a":01}`, 6},
		{"bare minus", `{"a":-}`, 6},
		{"no fraction", `{"a":1.}`, 7},
		{"no exponent", `{"a":1e+}`, 8},
		{"plus", `{"a":+1}`, 5},
		{"misspelt literal", `{"a":nul}`, 5},
		{"crossed brackets", `{"a":[1}`, 7},
		{"too deep", `{"a":` + strings.Repeat("[", rawjson.MaxDepth) + strings.Repeat("]", rawjson.MaxDepth) + `}`, 5 + rawjson.MaxDepth},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := members(t, tc.text)
			se, ok := errors.AsType[*rawjson.SyntaxError](err)
			if !ok {
				t.Fatalf("got error %v, want a SyntaxError", err)
			}
			if se.Offset != tc.offset {
				t.Errorf("got %v, want offset %d", err, tc.offset)
			}
			if _, err := rawjson.Hash([]byte(tc.text), nil); err == nil {
				t.Error("Hash accepts it")
			}
		})
	}
}

func TestDepthAtLimit(t *testing.T) {
	n := rawjson.MaxDepth - 1
	if _, err := members(t, `{"a":`+strings.Repeat("[", n)+strings.Repeat("]", n)+`}`); err != nil {
		t.Error(err)
	}
}

func TestMembersStops(t *testing.T) {
	calls := 0
	err := rawjson.Members([]byte(`{"a":1,"b":2,!`), func(_, _ []byte) bool { calls++; return calls < 2 })
	if err != nil || calls != 2 {
		t.Errorf("got %d calls and %v, want 2 and no error: what follows the stop is not read", calls, err)
	}
}

func TestElements(t *testing.T) {
	var got []string
	add := func(v []byte) bool { got = append(got, string(v)); return true }
	if err := rawjson.Elements([]byte(` [ 1 , {"a":[]},"x" ] `), add); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(got, []string{"1", `{"a":[]}`, `"x"`}); d != "" {
		t.Error(d)
	}
	for _, text := range []string{"", "{}", "[1", "[1,]", "[] 1", "[1 2]"} {
		if err := rawjson.Elements([]byte(text), add); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}

func TestHash(t *testing.T) {
	hash := func(text string, ignore ...string) uint64 {
		t.Helper()
		h, err := rawjson.Hash([]byte(text), rawjson.Ignore(ignore...))
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		return h
	}
	base := `{"dateTime":"x","speed":1.0,"inactiveSeconds":5,"alerts":["a"]}`
	for _, tc := range []struct {
		name, text string
		same       bool
	}{
		{"itself", base, true},
		{"ignored value", `{"dateTime":"x","speed":1.0,"inactiveSeconds":6,"alerts":["a"]}`, true},
		{"ignored gone", `{"dateTime":"x","speed":1.0,"alerts":["a"]}`, true},
		{"other order", `{"speed":1.0,"alerts":["a"],"inactiveSeconds":5,"dateTime":"x"}`, true},
		{"white space", "{ \"dateTime\" : \"x\",\n\"speed\":1.0 ,\"alerts\":[\"a\"]}", true},
		{"escaped name", `{"dateTime":"x","\u0073peed":1.0,"alerts":["a"]}`, true},
		{"number spelling", `{"dateTime":"x","speed":1,"alerts":["a"]}`, false},
		{"string spelling", `{"dateTime":"\u0078","speed":1.0,"alerts":["a"]}`, false},
		{"exchanged values", `{"dateTime":1.0,"speed":"x","alerts":["a"]}`, false},
		{"one more", `{"dateTime":"x","speed":1.0,"alerts":["a"],"z":null}`, false},
		{"one less", `{"dateTime":"x","alerts":["a"]}`, false},
		{"twice", `{"dateTime":"x","speed":1.0,"speed":1.0,"alerts":["a"]}`, false},
		{"nested", `{"dateTime":"x","speed":1.0,"alerts":["a","a"]}`, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if same := hash(tc.text, "inactiveSeconds") == hash(base, "inactiveSeconds"); same != tc.same {
				t.Errorf("got same=%v, want %v", same, tc.same)
			}
		})
	}
	// Two replicas of different builds compare hashes only if the value is pinned.
	if got, want := hash(`{"a":1,"b":"x"}`), uint64(0x254c96dfb5ae96fd); got != want {
		t.Errorf("got %#x, want %#x: the hash has changed", got, want)
	}
}

func TestUnquote(t *testing.T) {
	for _, tc := range []struct {
		name, value, want string
		ok                bool
	}{
		{"plain", `"dev 1"`, "dev 1", true},
		{"empty", `""`, "", true},
		{"escapes", `"\"\\\/\b\f\n\r\t\u00e9\uD83D\uDE00"`, "\"\\/\b\f\n\r\té😀", true},
		{"lone surrogates", `"\ud83dx\ude00\ud83d\u0041"`, "\ufffdx\ufffd\ufffdA", true},
		{"number", `1`, "", false},
		{"null", `null`, "", false},
		{"nothing", ``, "", false},
		{"unfinished", `"a`, "", false},
		{"tail", `"a"b`, "", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, ok := rawjson.Unquote([]byte(tc.value))
			if string(got) != tc.want || ok != tc.ok {
				t.Errorf("got %q %v, want %q %v", got, ok, tc.want, tc.ok)
			}
		})
	}
	if !rawjson.IsNull([]byte("null")) || rawjson.IsNull([]byte("nul")) {
		t.Error("IsNull")
	}
}

func TestNumber(t *testing.T) {
	for text, want := range map[string]float64{"0": 0, "-1.5e2": -150, "4": 4, "1e-400": 0} {
		if got, ok := rawjson.Number([]byte(text)); !ok || got != want {
			t.Errorf("%s: got %v, %t", text, got, ok)
		}
	}
	for _, text := range []string{"", "null", "true", `"4"`, "[1]", "1e400", "Inf", "+1", ".5", "NaN"} {
		if got, ok := rawjson.Number([]byte(text)); ok {
			t.Errorf("%s: got %v", text, got)
		}
	}
}

// FuzzMembers holds the walk against encoding/json: the same texts are accepted, and the members are
// the same names with the same raw values.
func FuzzMembers(f *testing.F) {
	for _, seed := range []string{
		sample, `{}`, `{"a":1,"a":2}`, `{"\ud800":[{"x":1e5}]}`, `{"a":-0.0E-1}`, `[]`, `{"a":"\u12"}`,
		"{\"a\":\"\xff\"}", "{\"a\":\"\x7f\"}", `{"a":truefalse}`, `{"a":1 2}`, "{}\x00",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		before := bytes.Clone(data)
		var keys []string
		last := map[string]string{}
		err := rawjson.Members(data, func(k, v []byte) bool {
			keys = append(keys, string(k))
			last[string(bytes.ToValidUTF8(k, nil))] = string(v)
			return true
		})
		_, hashErr := rawjson.Hash(data, nil)
		if (err == nil) != (hashErr == nil) {
			t.Fatalf("Members says %v, Hash %v", err, hashErr)
		}
		if !bytes.Equal(before, data) {
			t.Fatal("the input was changed")
		}
		object := json.Valid(data) && bytes.TrimLeft(data, " \t\r\n")[0] == '{'
		if (err == nil) != object {
			t.Fatalf("got %v, encoding/json thinks object=%v", err, object)
		}
		if err != nil {
			return
		}
		var want map[string]json.RawMessage
		if err := json.Unmarshal(data, &want); err != nil {
			t.Fatal(err)
		}
		for _, k := range keys {
			if !json.Valid([]byte(last[string(bytes.ToValidUTF8([]byte(k), nil))])) {
				t.Fatalf("value of %q is no JSON", k)
			}
			if bytes.ContainsRune([]byte(k), '\ufffd') || len(bytes.ToValidUTF8([]byte(k), nil)) != len(k) {
				return // encoding/json folds such names together
			}
		}
		got := map[string]string{}
		for k, v := range want {
			got[k] = string(v)
		}
		if d := cmp.Diff(last, got); d != "" {
			t.Fatal(d)
		}
	})
}

// FuzzUnquote holds Unquote against encoding/json.
func FuzzUnquote(f *testing.F) {
	for _, seed := range []string{`"a"`, `"\ud83d\ude00"`, `"\ud83d\ud83d\ude00"`, `"\u0000"`, `"`, `"\"`, `"a"1`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, ok := rawjson.Unquote(data)
		var want string
		valid := len(data) > 0 && data[0] == '"' && data[len(data)-1] == '"' && json.Unmarshal(data, &want) == nil
		if ok != valid {
			t.Fatalf("got %v, want %v", ok, valid)
		}
		if ok && strings.ToValidUTF8(string(got), "?") != strings.ToValidUTF8(string(got), "") {
			return // encoding/json repairs UTF-8, this package does not
		}
		if ok && string(got) != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	})
}

// sample is a full answer's lastLocation of 900 bytes.
var sample = func() string {
	text := `{"dateTime":"2024-06-02T08:48:25.009Z","latitude":4.710989,"longitude":-74.072092,"speed":42.5,"course":181,` +
		`"battery":87,"fuel":55,"fuel2":0,"temperature":21.5,"temperature2":-3.25,"sensorTime1":1200,"sensorTime2":0,` +
		`"inactiveSeconds":12,"rpm":1850,"milleage":120345.7,"warningTexts":["Battery low"],"alertTexts":["Speeding"],` +
		`"alerts":["SpeedLimit"],"warnings":["LowBattery"],"hasCriticalAlert":false,"inputs":[true,false,false,true],` +
		`"outputs":[false,false],"attributes":{"driver":"A. Person","trailer":"TR-118","route":"north 7"},` +
		`"accessoriesAttributes":[{"serial":"0012","kind":"door"}],"note":"%s"}`
	return fmt.Sprintf(text, strings.Repeat("x", 900-len(text)+2))
}()

func BenchmarkHash(b *testing.B) {
	data := []byte(sample)
	ignore := rawjson.Ignore("inactiveSeconds")
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := rawjson.Hash(data, ignore); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMembers(b *testing.B) {
	data := []byte(sample)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		if err := rawjson.Members(data, func(_, _ []byte) bool { n++; return true }); err != nil || n != 25 {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkEncodingJSON(b *testing.B) {
	data := []byte(sample)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		var m map[string]json.RawMessage
		if err := json.Unmarshal(data, &m); err != nil {
			b.Fatal(err)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	data := []byte(sample)
	ignore := rawjson.Ignore("inactiveSeconds")
	if n := testing.AllocsPerRun(100, func() {
		count := 0
		_ = rawjson.Members(data, func(_, _ []byte) bool { count++; return true })
		_, _ = rawjson.Hash(data, ignore)
	}); n != 0 {
		t.Errorf("got %v allocations, want none", n)
	}
}
