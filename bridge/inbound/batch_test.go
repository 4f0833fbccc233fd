package inbound

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"plaspy-bridge/bridge/inbound/message"
	"plaspy-bridge/publisher/natstest"
)

// batchOf is a batch of numbered locations.
func batchOf(numbers ...int) []byte {
	list := make([][]byte, len(numbers))
	for i, n := range numbers {
		list[i] = location(n)
	}
	return append(append([]byte("["), bytes.Join(list, []byte(","))...), ']')
}

// resultOf is the one result of a run.
func (r *rig) resultOf() (v struct {
	Posted     bool
	Reason     string
	DeadLetter uint64
	Items      []message.ElementResult
}) {
	r.t.Helper()
	if err := json.Unmarshal(r.messages(subjects.Results(), 1)[0].Data, &v); err != nil {
		r.t.Fatal(err)
	}
	return v
}

func numbers(t *testing.T, took []accepted) (list []int) {
	for _, p := range took {
		list = append(list, number(t, p.body))
	}
	return list
}

// TestBatch: the elements are posted in order, between the messages before and
// behind the batch, and end in one result.
func TestBatch(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, contentType string
		body              []byte
	}{
		{"array", "", batchOf(1, 2, 3)},
		{"lines", "application/x-ndjson", bytes.Join([][]byte{location(1), location(2), location(3)}, []byte("\n"))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			api := newFakeAPI(nil)
			r.put("plaspy.in.location.d", location(0))
			r.put("plaspy.in.location.d", tt.body, "content-type", tt.contentType)
			r.put("plaspy.in.location.d", location(4))
			run(t, r.consumer(api))
			r.waitCount(subjects.Inbound(), 0)
			if got := fmt.Sprint(numbers(t, api.accepted())); got != "[0 1 2 3 4]" {
				t.Errorf("posted %s", got)
			}
			keys := map[string]bool{}
			for _, p := range api.accepted() {
				keys[p.key] = true
			}
			if len(keys) != 5 {
				t.Errorf("%d keys of 5 posts", len(keys))
			}
			m := r.messages(subjects.Results(), 3)[1]
			if !strings.HasSuffix(string(m.Data), `"items":[{"status":200,"posted":true},{"status":200,"posted":true},{"status":200,"posted":true}]}`) || !strings.Contains(string(m.Data), `"posted":true,"status":200,"attempts":3`) {
				t.Errorf("result %s", m.Data)
			}
		})
	}
}

// TestBatchPartlyRefused: a refused element does not stop the others.
func TestBatchPartlyRefused(t *testing.T) {
	r := newRig(t)
	api := newFakeAPI(func(_ string, _ int, body []byte) error {
		if number(t, string(body)) == 2 {
			return status(422)
		}
		return nil
	})
	r.put("plaspy.in.location.d", []byte(strings.Replace(string(batchOf(1, 2, 3)), "},{", "},{},{", 1)))
	run(t, r.consumer(api))
	r.waitCount(subjects.Inbound(), 0)
	if got := fmt.Sprint(numbers(t, api.accepted())); got != "[1 3]" {
		t.Errorf("posted %s", got)
	}
	letter := r.messages(subjects.DeadLetters(), 1)[0]
	if want := "[{}," + string(location(2)) + "]"; string(letter.Data) != want {
		t.Errorf("letter %s, want %s", letter.Data, want)
	}
	got := r.resultOf()
	if got.Posted || got.Reason != "2 of 4 elements were refused" || got.DeadLetter != 1 || len(got.Items) != 4 ||
		!got.Items[0].Posted || got.Items[1].Error == "" || got.Items[1].Status != 0 || got.Items[2].Status != 422 || got.Items[2].Error == "" || !got.Items[3].Posted {
		t.Errorf("result %+v", got)
	}
}

// TestBatchCrash: a process that continues a batch posts no element again that
// was answered, and a failing element is tried again.
func TestBatchCrash(t *testing.T) {
	r := newRig(t)
	hang := make(chan struct{})
	defer close(hang)
	reached := make(chan struct{})
	first := newFakeAPI(func(_ string, _ int, body []byte) error {
		if number(t, string(body)) == 3 {
			close(reached)
			<-hang // the process dies meanwhile
		}
		return nil
	})
	r.put("plaspy.in.location.d", batchOf(1, 2, 3, 4, 5))
	c := r.consumer(first, func(c *Consumer) { c.opt.Grace = time.Millisecond })
	run(t, c)
	<-reached

	var failed atomic.Bool
	second := newFakeAPI(func(_ string, _ int, body []byte) error {
		if number(t, string(body)) == 4 && failed.CompareAndSwap(false, true) {
			return status(503)
		}
		return nil
	})
	run(t, r.consumer(second))
	r.waitCount(subjects.Inbound(), 0)
	if one, two := fmt.Sprint(numbers(t, first.accepted())), fmt.Sprint(numbers(t, second.accepted())); one != "[1 2]" || two != "[3 4 5]" {
		t.Errorf("posted %s, then %s", one, two)
	}
	if got := r.resultOf(); !got.Posted || len(got.Items) != 5 {
		t.Errorf("result %+v", got)
	}
}

// TestBatchTooOld: of a batch that is too old the elements that are left are
// refused, and those that were posted are not in its letter.
func TestBatchTooOld(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	clock := r.agesOf(r.put("plaspy.in.location.d", batchOf(1, 2, 3)))
	api := newFakeAPI(func(_ string, _ int, body []byte) error {
		if number(t, string(body)) == 2 {
			clock.is(2 * time.Hour)
			return status(500)
		}
		return nil
	})
	run(t, r.consumer(api, clock.set))
	r.waitCount(subjects.Inbound(), 0)
	letter := r.messages(subjects.DeadLetters(), 1)[0]
	if want := string(batchOf(2, 3)); string(letter.Data) != want {
		t.Errorf("letter %s, want %s", letter.Data, want)
	}
	got := r.resultOf()
	if got.Posted || len(got.Items) != 3 || !got.Items[0].Posted || !strings.Contains(got.Items[2].Error, "too old") {
		t.Fatalf("result %+v", got)
	}
	if got.Items[1].Status != 500 || got.Items[2].Status != 0 {
		t.Errorf("statuses %d and %d, want that of the failed try and none", got.Items[1].Status, got.Items[2].Status)
	}
}

// TestBatchUnsaved: while progress cannot be stored, the next element is not
// posted; afterwards none is posted twice.
func TestBatchUnsaved(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	bucket := subjects.ReplicasBucket()
	kv, err := r.js.Stream(t.Context(), "KV_"+bucket)
	if err != nil {
		t.Fatal(err)
	}
	cfg := kv.CachedInfo().Config
	var c *Consumer
	api := newFakeAPI(func(_ string, _ int, body []byte) error {
		if number(t, string(body)) == 1 {
			return r.js.DeleteStream(t.Context(), "KV_"+bucket)
		}
		return nil
	})
	r.put("plaspy.in.location.d", batchOf(1, 2, 3))
	r.put("plaspy.in.location.other", location(9))
	c = r.consumer(api)
	run(t, c)
	api.waitFor(t, "post of the other device", func(took []accepted) bool { return len(took) >= 2 })
	natstest.Eventually(t, "the trouble with the progress", func() bool { return strings.Contains(c.Trouble(), "progress") })
	if _, err := r.js.CreateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	r.waitCount(subjects.Inbound(), 0)
	var got []int
	for _, p := range api.accepted() {
		if p.device == "d" {
			got = append(got, number(t, p.body))
		}
	}
	if fmt.Sprint(got) != "[1 2 3]" {
		t.Errorf("posted %v", got)
	}
}
