package outbound

import (
	"context"
	"testing"
	"time"

	"plaspy-bridge/publisher/natstest"
)

// retention sets how long the events stay.
func (r *rig) retention(age time.Duration) {
	r.t.Helper()
	st, err := natstest.Own(r.t, r.pub).Stream(context.Background(), "PLASPY_EVENTS")
	if err != nil {
		r.t.Fatal(err)
	}
	cfg := st.CachedInfo().Config
	cfg.MaxAge, cfg.Duplicates = age, min(age, cfg.Duplicates)
	if _, err := natstest.Own(r.t, r.pub).UpdateStream(context.Background(), cfg); err != nil {
		r.t.Fatal(err)
	}
}

// ageOut has all events leave the stream by age.
func (r *rig) ageOut() {
	r.t.Helper()
	r.retention(time.Second)
	for deadline := time.Now().Add(time.Minute); len(r.events()) > 0; {
		if time.Now().After(deadline) {
			r.t.Fatal("the events do not age out")
		}
	}
}

// TestSilentBeyondRetention: the alert is neither raised again by a restart after
// its event has left the stream, nor left without its end.
func TestSilentBeyondRetention(t *testing.T) {
	t.Parallel()
	remember := func(r *rig, p *Parts) {
		p.RememberSilent = r.pub.Positions().RememberSilent
	}
	o := options()
	o.SilentAfter = 20 * time.Millisecond
	api := newFakeAPI("d")
	api.show("d", at(1, 1))
	srv := natstest.Start(t)
	r := newRigWith(t, srv, api, api, o, remember)
	r.until("silence", body(`"state":"raised"`))
	r.stop()
	kv, err := natstest.Own(t, r.pub).KeyValue(t.Context(), subjects.SilentBucket())
	if err != nil {
		t.Fatal(err)
	}
	w, err := kv.Watch(t.Context(), "d")
	if err != nil {
		t.Fatal(err)
	}
	for e := <-w.Updates(); e == nil; e = <-w.Updates() {
		continue // the end of the first events
	}
	r.ageOut()
	r.forgetPolls()
	r = newRigWith(t, srv, api, api, o, remember)
	r.polls("d", 20)
	if got := withoutDevices(summary(r.events())); len(got) != 0 {
		t.Fatalf("published again: %v", got)
	}
	r.retention(time.Hour)
	o.SilentAfter = time.Hour
	api.show("d", at(2, 2))
	got := r.until("the end of silence", body(`"state":"cleared"`))
	equal(t, withoutDevices(summary(got)), []string{"location.d 2", "alert.d.silent cleared bridge"})
	if _, err := kv.Get(t.Context(), "d"); err != nil {
		t.Error(err)
	}
}
