package outbound

import (
	"bytes"
	"context"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"testing"

	"plaspy-bridge/bridge/outbound/decision"
	"plaspy-bridge/publisher/natstest"
)

// wide is a location with every documented field.
func wide(second, v int) string {
	return at(second, v, `"speed":42.5,"course":181,"battery":87,"fuel":55,"fuel2":0,"temperature":21.5,"temperature2":-3.25,"sensorTime1":1200,`+
		`"sensorTime2":0,"inactiveSeconds":12,"rpm":1850,"milleage":120345.7,"warningTexts":["Battery low"],"alertTexts":["Speeding"],`+
		`"alerts":["SOS"],"warnings":["LowBattery"],"hasCriticalAlert":false,"inputs":[true,false,false,true],"outputs":[false,false],`+
		`"attributes":{"driver":"A. Person","trailer":"TR-118","route":"north 7"},"accessoriesAttributes":[{"serial":"0012","kind":"door"}]`)
}

// TestWhyNamesFields follows a device through changes, a restart and another
// replica.
func TestWhyNamesFields(t *testing.T) {
	t.Parallel()
	api := newFakeAPI("d")
	srv := natstest.Start(t)
	api.show("d", wide(1, 1))
	r := newRig(t, srv, api, options())
	// newest waits until n changes were published, because an event is in the stream
	// before its turn has ended.
	newest := func(n int) decision.Shown {
		t.Helper()
		for range 100 {
			why, ok := r.pool.reason("d")
			if !ok {
				t.Fatal("no reason")
			}
			changed := slices.DeleteFunc(slices.Clone(why.Decisions), func(d decision.Shown) bool { return d.Result != "changed" })
			if len(changed) >= n {
				return changed[0]
			}
			r.polls("d", 1)
		}
		t.Fatalf("there are fewer than %d changes", n)
		return decision.Shown{}
	}
	r.until("the first", body("dateTime"))
	if got := newest(1); got.Detail != "its first fix" || got.Fields != nil {
		t.Errorf("the first fix is reported as %+v", got)
	}
	api.show("d", strings.Replace(wide(2, 7), `"A. Person"`, `"B. Person"`, 1))
	r.until("the second", body("B. Person"))
	want := []string{"dateTime", "v", "attributes.driver"}
	if got := newest(2); !slices.Equal(got.Fields, want) || got.Published != 1 || got.ID == "" || got.Detail != "" {
		t.Errorf("the second is reported as %+v, want the fields %v", got, want)
	}
	r.stop()

	// After a restart the next answer is compared with the event in the stream.
	api.show("d", strings.Replace(wide(2, 8), `"A. Person"`, `"B. Person"`, 1))
	r = newRig(t, srv, api, options())
	r.until("the third", body(`"v":8`))
	if got := newest(1); !slices.Equal(got.Fields, []string{"v"}) {
		t.Errorf("after a restart it is reported as %+v", got)
	}
	r.stop()
}

// TestWhySaysWhoPublished checks that a fix is not published if another replica has
// published a later one, and that why says so.
func TestWhySaysWhoPublished(t *testing.T) {
	t.Parallel()
	api, srv := newFakeAPI("d"), natstest.Start(t)
	beyond, read := make(chan struct{}), make(chan struct{})
	defer close(read)
	second, third := make(chan struct{}), make(chan struct{})
	api.next["d"] = func(poll int) (string, error) {
		switch poll {
		case 0:
			return at(1, 1), nil
		case 1:
			close(second)
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
	<-second
	other := newFakeAPI("d")
	other.show("d", at(5, 5))
	b := newRig(t, srv, other, options())
	b.until("what the other one saw", body(`"v":5`))
	b.stop()
	close(beyond)
	<-third
	why, ok := a.pool.reason("d")
	if got := why.Decisions[0]; !ok || got.Published != 0 || got.Detail != errOutdated.Error() || !slices.Equal(got.Fields, []string{"dateTime", "v"}) {
		t.Errorf("got %+v", why.Decisions)
	}
}

func TestWhyOfDevicesThatAreNotPolled(t *testing.T) {
	t.Parallel()
	api := newFakeAPI("mine", "other", "left out")
	for _, id := range []string{"mine", "other", "left out"} {
		api.show(id, at(1, 1))
	}
	o := options()
	o.Select.Exclude = []string{"left*"}
	r := newRig(t, natstest.Start(t), api, o)
	r.until("the fix", body("dateTime"))
	r.own(func(token string) bool { return token == "mine" })
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

// TestWhyIsHeld: the reason why polls are held back is reported as long as it applies.
func TestWhyIsHeld(t *testing.T) {
	token := make(chan struct{})
	live := make(chan struct{})
	o := options()
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
	r := newRigWith(t, natstest.Start(t), api, api, o, func(r *rig, _ *Parts) { r.share.idle = func() bool { return !closed(live) } })
	r.until("the device", body(`"added"`))
	for r.pool.Owned() == 0 { // it is scheduled just after its addition is published
		runtime.Gosched()
	}
	held := func(want string) {
		t.Helper()
		if why, ok := r.pool.reason("d"); !ok || why.Held != want {
			t.Errorf("held by %q, want %q", why.Held, want)
		}
	}
	held("this replica does not hold its lease")
	close(live)
	held("there is no token")
	close(token)
	r.polls("d", 2)
	held("")
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// TestDecisionsAreLogged: at the level debug each turn writes one line, and at info
// none.
func TestDecisionsAreLogged(t *testing.T) {
	t.Parallel()
	const polls = 5
	for level, want := range map[slog.Level]bool{slog.LevelDebug: true, slog.LevelInfo: false} {
		t.Run(level.String(), func(t *testing.T) {
			t.Parallel()
			api := newFakeAPI("d")
			api.show("d", at(1, 1))
			var out bytes.Buffer
			r := newRigWith(t, natstest.Start(t), api, api, options(), func(_ *rig, p *Parts) {
				p.Log = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: level}))
			})
			r.until("the first", body("dateTime"))
			r.polls("d", polls)
			r.stop()
			text := out.String()
			first := strings.Count(text, `msg="poll ended" device_id=d result=changed reason="its first fix" count=1 seq=`)
			same := strings.Count(text, `msg="poll ended" device_id=d result=unchanged elapsed=`)
			if want && (first != 1 || same < polls-1) || !want && strings.Contains(text, "poll ended") {
				t.Errorf("%d first and %d unchanged polls are logged:\n%s", first, same, text)
			}
		})
	}
}
