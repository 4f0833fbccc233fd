package message

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// at is a location message with a header.
func at(kind Kind, contentType, body string) *Message {
	subject := "plaspy.in." + string(kind) + ".d"
	m := &Message{Seq: 7, At: time.Unix(0, 0), Subject: subject, Address: AddressOf(subjects, subject), Body: []byte(body)}
	if contentType != "" {
		m.Header = map[string][]string{"Content-Type": {contentType}}
	}
	return m
}

func TestSplit(t *testing.T) {
	const loc = `{"dateTime":"2026-01-02T03:04:01Z","latitude":1,"longitude":2}`
	for _, tt := range []struct {
		name, contentType, body string
		want                    []string
		batch                   bool
	}{
		{"one", "", loc, []string{loc}, false},
		{"one with a mark", "", "\xef\xbb\xbf" + loc, []string{loc}, false},
		{"no JSON is for the reader to refuse", "", "help", []string{"help"}, false},
		{"array", "", " [" + loc + ", " + loc + "]\n", []string{loc, loc}, true},
		{"array of one", "application/json; charset=utf-8", "[" + loc + "]", []string{loc}, true},
		{"array of anything", "", `[1,"a",null,[` + loc + `]]`, []string{"1", `"a"`, "null", "[" + loc + "]"}, true},
		{"lines", "application/x-ndjson", loc + "\r\n\n" + loc, []string{loc, loc}, true},
		{"lines by any spelling", "Application/X-NDJSON; charset=utf-8", loc + "\n", []string{loc}, true},
		{"a line that is no JSON", "application/x-ndjson", loc + "\n{\n", []string{loc, "{"}, true},
		{"lines without the type", "", loc + "\n" + loc, []string{loc + "\n" + loc}, false},
		{"event", "application/cloudevents+json", `{"specversion":"1.0","id":"1","type":"t","source":"s","data":` + loc + `}`, []string{loc}, false},
		{"event with a batch", "application/cloudevents+json; charset=UTF-8", `{"specversion":"1.0","data":[` + loc + `]}`, []string{loc}, true},
		{"event in base64", "application/cloudevents+json", `{"specversion":"1.0","data_base64":"` + base64.StdEncoding.EncodeToString([]byte(loc)) + `"}`, []string{loc}, false},
		{"event with lines", "application/cloudevents+json", `{"specversion":"1.0","datacontenttype":"application/x-ndjson","data":"{}\n{}"}`, []string{"{}", "{}"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := Split(at(Location, tt.contentType, tt.body))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range p.Elements {
				got = append(got, string(e))
			}
			if !slices.Equal(got, tt.want) || p.Batch != tt.batch {
				t.Errorf("batch %t of %q, want %t of %q", p.Batch, got, tt.batch, tt.want)
			}
		})
	}
	for _, tt := range []struct {
		name              string
		kind              Kind
		contentType, body string
		field             string
	}{
		{"array of nothing", Location, "", "[ ]", "body"},
		{"no lines", Location, "application/x-ndjson", "\n\n", "body"},
		{"broken array", Location, "", "[{},", "body"},
		{"something behind the array", Location, "", "[{}]x", "body"},
		{"alerts", Alert, "", "[{}]", "body"},
		{"too many", Location, "", "[" + strings.Repeat("1,", maxElements) + "1]", "body"},
		{"no UTF-8", Location, "", "[\"\xff\"]", "body"},
		{"event without data", Location, "application/cloudevents+json", `{"specversion":"1.0"}`, "data"},
		{"event without version", Location, "application/cloudevents+json", `{"data":{}}`, "specversion"},
		{"event with broken base64", Location, "application/cloudevents+json", `{"specversion":"1.0","data_base64":"-"}`, "data_base64"},
		{"event that is none", Location, "application/cloudevents+json", `[]`, "body"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Split(at(tt.kind, tt.contentType, tt.body))
			if e, ok := errors.AsType[*FieldError](err); !ok || e.Field != tt.field {
				t.Errorf("error %v, want one that names %s", err, tt.field)
			}
		})
	}
}

// TestPartlyRefused: the letter of a batch has the refused elements, and the
// result has the outcome of each.
func TestPartlyRefused(t *testing.T) {
	loc := func(n int) string {
		return fmt.Sprintf(`{"dateTime":"2026-01-02T03:04:0%dZ","latitude":1,"longitude":2}`, n)
	}
	items := []ElementResult{{200, true, ""}, {0, false, "latitude: is missing"}, {404, false, `{"error":"no"}`}}
	for _, tt := range []struct{ name, contentType, body, letter, letterType string }{
		{"array", "", "[" + loc(1) + ", {}," + loc(2) + "]", "[{}," + loc(2) + "]", ""},
		{"lines", "application/x-ndjson", loc(1) + "\n{}\n" + loc(2), "{}\n" + loc(2), "application/x-ndjson"},
		{"event", "application/cloudevents+json", `{"specversion":"1.0","data":[` + loc(1) + ",{}," + loc(2) + "]}", "[{}," + loc(2) + "]", "application/json"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := at(Location, tt.contentType, tt.body)
			p, err := Split(m)
			if err != nil {
				t.Fatal(err)
			}
			w := &Writer{Subjects: subjects}
			o, _ := w.Outcome(m, Reader{}.Decide(&p, items))
			letter := o.Next()
			if o.Posted() || string(letter.Body) != tt.letter || contentTypeOf(letter.Header) != tt.letterType {
				t.Errorf("letter %s %v, want %s of %s", letter.Body, letter.Header, tt.letter, tt.letterType)
			}
			if again, err := Split(&Message{Address: m.Address, Header: letter.Header, Body: letter.Body}); err != nil || len(again.Elements) != 2 || !again.Batch {
				t.Errorf("the letter is split to %q, %v", again.Elements, err)
			}
			o.Stored(3)
			const want = `"posted":false,"reason":"2 of 3 elements were refused","error":"element 1: latitude: is missing","status":0,"attempts":0,"deadLetter":3,` +
				`"items":[{"status":200,"posted":true},{"status":0,"posted":false,"error":"latitude: is missing"},{"status":404,"posted":false,"error":"{\"error\":\"no\"}"}]}`
			if result := o.Next(); !strings.HasSuffix(string(result.Body), want) || len(result.Header[HeaderPosted]) != 1 {
				t.Errorf("result %s %v, want %s", result.Body, result.Header, want)
			}
		})
	}
	t.Run("all refused", func(t *testing.T) {
		m := at(Location, "", " [{} , {}]")
		p, _ := Split(m)
		o, _ := (&Writer{Subjects: subjects}).Outcome(m, Reader{}.Decide(&p, []ElementResult{{}, {}}))
		if got := string(o.Next().Body); got != " [{} , {}]" {
			t.Errorf("letter %s, want the body unchanged", got)
		}
	})
	t.Run("all posted", func(t *testing.T) {
		m := at(Location, "", "["+loc(1)+","+loc(2)+"]")
		p, _ := Split(m)
		o, _ := (&Writer{Subjects: subjects}).Outcome(m, Reader{}.Decide(&p, []ElementResult{{200, true, ""}, {201, true, ""}}))
		result := o.Next()
		if !o.Posted() || !strings.HasSuffix(string(result.Body), `"response":null,"items":[{"status":200,"posted":true},{"status":201,"posted":true}]}`) || len(result.Header[HeaderPosted]) != 2 {
			t.Errorf("result %s %v", result.Body, result.Header)
		}
	})
}

// TestManyItems: the result of the largest batch fits into a message, with less
// in it if it has to be.
func TestManyItems(t *testing.T) {
	m := at(Location, "", "["+strings.Repeat("1,", maxElements-1)+"1]")
	p, err := Split(m)
	if err != nil {
		t.Fatal(err)
	}
	items := make([]ElementResult, len(p.Elements))
	for i := range items {
		items[i].Error = strings.Repeat("e", 500)
	}
	for _, limit := range []int{8 << 20, 1 << 20, 64 << 10} {
		o, _ := (&Writer{Subjects: subjects, MaxPayload: limit}).Outcome(m, Reader{}.Decide(&p, items))
		o.Stored(1)
		if got := o.Next().Body; len(got) > limit || !json.Valid(got) {
			t.Errorf("%d bytes where %d are accepted", len(got), limit)
		}
	}
}

// TestProgress: progress is read as it was written, and its size does not
// grow with the number of elements that are alike.
func TestProgress(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		items := rapid.SliceOf(rapid.Custom(func(t *rapid.T) ElementResult {
			return rapid.SampledFrom([]ElementResult{{200, true, ""}, {201, true, ""}, {404, false, "no"}, {0, false, "latitude: is missing"}}).Draw(t, "item")
		})).Draw(t, "items")
		got, ok := DecodeProgress(EncodeProgress(items), len(items))
		if !ok || !slices.Equal(got, items) {
			t.Fatalf("got %v, want %v", got, items)
		}
		if _, ok := DecodeProgress(EncodeProgress(append(items, ElementResult{200, true, ""})), len(items)); ok {
			t.Fatal("more items than elements are accepted")
		}
	})
	same := slices.Repeat([]ElementResult{{200, true, ""}}, maxElements)
	if n := len(EncodeProgress(same)); n > 100 {
		t.Errorf("%d bytes for items that are alike", n)
	}
	var odd []ElementResult
	for i := range maxElements {
		odd = append(odd, ElementResult{404, false, fmt.Sprintf("%d %s", i, strings.Repeat("é", 500))})
	}
	data := EncodeProgress(odd)
	if got, ok := DecodeProgress(data, maxElements); !ok || len(got) != maxElements || len(data) > maxProgressBytes {
		t.Errorf("%d bytes, %d items", len(data), len(got))
	}
	for _, s := range []string{"", "{}", `[{"n":0}]`, `[{"n":-1}]`, `[{"n":9000000000000000000}]`} {
		if _, ok := DecodeProgress([]byte(s), 10); ok {
			t.Errorf("%q is accepted", s)
		}
	}
}

// FuzzSplit: of any body, the elements are parts of it, and the rest of a
// batch is a batch of the same elements.
func FuzzSplit(f *testing.F) {
	for _, seed := range []string{`[{},{}]`, "{}\n{}", `{"specversion":"1.0","data":[1]}`, "\xef\xbb\xbf[1]", "[", ""} {
		for _, contentType := range []string{"", typeNDJSON, typeStructured} {
			f.Add(contentType, seed)
		}
	}
	f.Fuzz(func(t *testing.T, contentType, body string) {
		m := at(Location, contentType, body)
		p, err := Split(m)
		if err != nil {
			if e, ok := errors.AsType[*FieldError](err); !ok || e.Field == "" || e.Reason == "" {
				t.Fatalf("error without a field: %v", err)
			}
			return
		}
		if len(p.Elements) == 0 || len(p.Elements) > maxElements {
			t.Fatalf("%d elements", len(p.Elements))
		}
		if !p.Batch {
			return
		}
		again, err := Split(&Message{Address: m.Address, Header: map[string][]string{headerContentType: {map[bool]string{true: typeNDJSON}[p.lines]}}, Body: p.rest(nil)})
		if err != nil || !slices.EqualFunc(again.Elements, p.Elements, func(a, b []byte) bool { return string(a) == string(b) }) {
			t.Fatalf("the rest %q is %q: %v", p.rest(nil), again.Elements, err)
		}
	})
}
