package outbound

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"plaspy-bridge/bridge/outbound/quota"
	"plaspy-bridge/bridge/plaspy/rawjson"
	"plaspy-bridge/publisher/natstest"
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
		{"too many to name", many(20, 1), many(20, 2), []string{"f000", "f001", "f002", "f003", "f004", "f005", "f006", "f007", more}},
		{"beyond what is told apart", many(200, 1), many(199, 1)[:len(many(199, 1))-1] + `,"f199":2}`, []string{more}},
		{"nothing", `{"a":1}`, `{"a":1}`, nil},
		{"long name", `{"` + strings.Repeat("é", 100) + `":1}`, `{"` + strings.Repeat("é", 100) + `":2}`, []string{strings.Repeat("é", 30) + more}},
		{"line feed in a name", `{"a\nb":1,"c":1}`, `{"a\nb":2,"c":1}`, []string{"a?b"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			if text := fieldsOf([]byte(tc.from)).changed(fieldsOf([]byte(tc.to)), ignored); text != "" {
				got = strings.Split(text, "\n")
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// FuzzFields: whatever the API sends, what is kept and told of it is bounded.
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
		if len(a.sums) > 4*(maxFields+1) || strings.Count(a.names.Value(), "\n") != len(a.sums)/4 {
			t.Fatalf("%d bytes of sums for names %q", len(a.sums), a.names.Value())
		}
		if again := a.changed(fieldsOf(from), nil); again != "" {
			t.Fatalf("differs from itself in %q", again)
		}
		text := a.changed(b, nil)
		list := strings.Split(text, "\n")
		if len(list) > maxFieldsTold+1 || !utf8.ValidString(text) {
			t.Fatalf("told %q", text)
		}
		for _, name := range list {
			if len(name) > maxFieldName {
				t.Fatalf("name of %d bytes: %q", len(name), name)
			}
		}
	})
}

// wide is a location with every documented field.
func wide(second, v int) string {
	return at(second, v, `"speed":42.5,"course":181,"battery":87,"fuel":55,"fuel2":0,"temperature":21.5,"temperature2":-3.25,"sensorTime1":1200,`+
		`"sensorTime2":0,"inactiveSeconds":12,"rpm":1850,"milleage":120345.7,"warningTexts":["Battery low"],"alertTexts":["Speeding"],`+
		`"alerts":["SOS"],"warnings":["LowBattery"],"hasCriticalAlert":false,"inputs":[true,false,false,true],"outputs":[false,false],`+
		`"attributes":{"driver":"A. Person","trailer":"TR-118","route":"north 7"},"accessoriesAttributes":[{"serial":"0012","kind":"door"}]`)
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
			if before.changed(after, nil) != "dateTime" {
				b.Fatal("wrong field")
			}
		}
	})
}

// TestWhyNamesFields follows a device through changes, a restart and another
// replica.
func TestWhyNamesFields(t *testing.T) {
	api := newFakeAPI("d")
	srv := natstest.Start(t)
	api.show("d", wide(1, 1))
	r := newRig(t, srv, api, options())
	newest := func(p *Pool, result string) Decision {
		t.Helper()
		why, ok := p.reason("d")
		if !ok {
			t.Fatal("no reason")
		}
		for _, d := range why.Decisions {
			if d.Result == result {
				return d
			}
		}
		t.Fatalf("no decision %q among %+v", result, why.Decisions)
		return Decision{}
	}
	r.until("the first", body("dateTime"))
	r.polls("d", 2)
	if got := newest(r.pool, "changed"); got.Detail != "its first fix" || got.Fields != nil {
		t.Errorf("the first fix is told as %+v", got)
	}
	api.show("d", strings.Replace(wide(2, 7), `"A. Person"`, `"B. Person"`, 1))
	r.until("the second", body("B. Person"))
	r.polls("d", 2)
	want := []string{"dateTime", "v", "attributes.driver"}
	if got := newest(r.pool, "changed"); !slices.Equal(got.Fields, want) || got.Published != 1 || got.ID == "" || got.Detail != "" {
		t.Errorf("the second is told as %+v, want the fields %v", got, want)
	}
	r.stop()

	// What the stream holds is what the next one is compared with after a restart.
	api.show("d", strings.Replace(wide(2, 8), `"A. Person"`, `"B. Person"`, 1))
	r = newRig(t, srv, api, options())
	r.until("the third", body(`"v":8`))
	r.polls("d", 2)
	if got := newest(r.pool, "changed"); !slices.Equal(got.Fields, []string{"v"}) {
		t.Errorf("after a restart it is told as %+v", got)
	}
	r.stop()
}

// TestWhySaysWhoPublished: what another replica has gone beyond is not published,
// and why says so.
func TestWhySaysWhoPublished(t *testing.T) {
	api, srv := newFakeAPI("d"), natstest.Start(t)
	beyond, read := make(chan struct{}), make(chan struct{})
	defer close(read)
	third := make(chan struct{})
	api.next["d"] = func(poll int) (string, error) {
		switch poll {
		case 0:
			return at(1, 1), nil
		case 1:
			<-beyond
			return at(3, 3), nil
		case 2:
			close(third)
		}
		<-read
		return at(5, 5), nil
	}
	a := newRig(t, srv, api, options())
	a.until("the first", body("dateTime"))
	other := newFakeAPI("d")
	other.show("d", at(5, 5))
	b := newRig(t, srv, other, options())
	b.until("what the other one saw", body(`"v":5`))
	b.stop()
	close(beyond)
	<-third
	why, ok := a.pool.reason("d")
	if got := why.Decisions[0]; !ok || got.Published != 0 || !strings.HasPrefix(got.Detail, "not published: ") || !slices.Equal(got.Fields, []string{"dateTime", "v"}) {
		t.Errorf("got %+v", why.Decisions)
	}
}

func TestWhyOfDevicesThatAreNotPolled(t *testing.T) {
	api := newFakeAPI("mine", "other", "left out")
	for _, id := range []string{"mine", "other", "left out"} {
		api.show(id, at(1, 1))
	}
	o := options()
	o.Select.Exclude = []string{"left*"}
	r := newRig(t, natstest.Start(t), api, o)
	r.until("the fix", body("dateTime"))
	r.pool.Own(func(token string) bool { return token == "mine" })
	for id, want := range map[string]string{"other": reasonElsewhere, "left out": reasonUnlisted} {
		if why, ok := r.pool.reason(id); !ok || why.Reason != want || why.Plan == "" || why.Next != nil {
			t.Errorf("%s: got %+v, want the reason %s", id, why, want)
		}
	}
	r.polls("mine", 20)
	if why, ok := r.pool.reason("mine"); !ok || why.Held != "" || len(why.Decisions) != 2 || why.Decisions[0].Times < 2 {
		t.Errorf("mine: got %+v", why)
	}
}

// TestWhyIsHeld: what keeps polls back is told while it does.
func TestWhyIsHeld(t *testing.T) {
	token := make(chan struct{})
	live := make(chan struct{})
	o := options()
	o.Live = func() bool { return closed(live) }
	o.Token = func(ctx context.Context) error {
		select {
		case <-token:
			return nil
		case <-ctx.Done():
		}
		if closed(token) {
			return nil
		}
		return ctx.Err()
	}
	api := newFakeAPI("d")
	api.show("d", at(1, 1))
	r := newRig(t, natstest.Start(t), api, o)
	r.until("the device", body(`"added"`))
	for r.pool.Owned() == 0 { // it comes under care just after its addition is told
		runtime.Gosched()
	}
	held := func(want string) {
		t.Helper()
		if why, ok := r.pool.reason("d"); !ok || why.Held != want {
			t.Errorf("held by %q, want %q", why.Held, want)
		}
	}
	held("this replica has no part in the work now")
	close(live)
	held("there is no token")
	close(token)
	r.polls("d", 2)
	held("")
}

func closed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestDecisionsKeepApart(t *testing.T) {
	d := &device{}
	now := time.Now()
	turn := func(r result, err error) {
		d.came(r, err)
		now = now.Add(time.Second)
		d.keep(now)
	}
	turn(resultChanged, nil)
	for range 24 {
		turn(resultPutOff, errNotOurs)
	}
	turn(resultPutOff, quota.ErrUsedUp)
	d.keep(now) // a turn that came to nothing
	var got []string
	for _, e := range d.decisions() {
		got = append(got, fmt.Sprint(e.Result, " ", e.Times, " ", e.Detail))
	}
	equal(t, got, []string{"put off 0 " + quota.ErrUsedUp.Error(), "put off 24 " + errNotOurs.Error(), "changed 0 "})
	if last := d.decisions()[1].At; !last.Equal(now.Add(-time.Second).UTC().Truncate(time.Millisecond)) {
		t.Errorf("the repeated one is of %v, want the last time", last)
	}
}
