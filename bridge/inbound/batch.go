package inbound

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/inbound/lane"
	"plaspy-bridge/bridge/inbound/message"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/publisher"
)

// batch is the state of a batch of locations that is being posted, element by
// element.
type batch struct {
	items []message.ElementResult // of the first elements, as far as they are decided
	known bool                    // an earlier process's progress was read
	saved bool                    // the progress is stored
}

// split splits the body into the elements to post.
func (m *item) split() (*message.Posts, error) {
	if m.posts == nil {
		posts, err := message.Split(&m.Message)
		if err != nil {
			return nil, err
		}
		m.posts = &posts
	}
	return m.posts, nil
}

// postBatch posts the next element of a batch. The lane then goes to the end of its
// queue, so that a long batch delays no other device. The outcome of an element is stored
// before the next one is posted, so that a crash repeats only the element in flight.
func (r *pass) postBatch(lm *lane.Message, posts *message.Posts) lane.Answer {
	b, answer := r.resume(lm, posts)
	if b == nil {
		return answer
	}
	m, t := lm.Content.(*item), triesOf(lm)
	if len(b.items) == len(posts.Elements) {
		return r.concluded(lm, posts, b)
	}
	f, err := r.c.opt.Reader.Read(m.Address.Kind, m.Address.Device, posts.Elements[len(b.items)])
	if err != nil {
		// It would be refused again after a crash, so this need not be stored.
		b.items = append(b.items, message.ElementResult{Error: err.Error()})
		return lane.Answer{More: true}
	}
	return r.try(lm, &f, message.ElementKey(t.id, len(b.items)), func(answer plaspy.Answer, refused string) lane.Answer {
		it := message.ElementResult{Status: answer.Status, Posted: true}
		if refused != "" {
			it = message.ElementResult{Status: t.status, Error: cmp.Or(t.detail, refused)}
		}
		return r.elementDone(lm, posts, it)
	})
}

// elementDone records the outcome of the next element of a batch.
func (r *pass) elementDone(lm *lane.Message, posts *message.Posts, it message.ElementResult) lane.Answer {
	t, m := triesOf(lm), lm.Content.(*item)
	b := t.batch
	b.items = append(b.items, it)
	t.renewed, t.detail = false, ""
	if len(b.items) == len(posts.Elements) {
		return r.concluded(lm, posts, b)
	}
	r.save(m, b)
	return lane.Answer{More: true}
}

// resume returns the progress of a batch once it is known and stored. Otherwise it
// returns nil, and the answer that makes the batch wait.
func (r *pass) resume(lm *lane.Message, posts *message.Posts) (*batch, lane.Answer) {
	m, t := lm.Content.(*item), triesOf(lm)
	if t.batch == nil {
		t.batch = r.c.unsaved(m.UniqueID(r.c.opt.Subjects))
	}
	b := t.batch
	if !b.known {
		items, err := r.c.progressOf(r.posts, m, len(posts.Elements))
		if err != nil {
			r.c.trouble.set(partStore, err)
			return nil, lane.Answer{Withheld: true}
		}
		b.items, b.known, b.saved = items, true, true
	}
	if !b.saved {
		if r.save(m, b); !b.saved {
			return nil, lane.Answer{Withheld: true}
		}
	}
	return b, lane.Answer{}
}

// save stores the progress of a batch. If that fails, the process keeps it for as
// long as it lives.
func (r *pass) save(m *item, b *batch) {
	c, own := r.c, m.UniqueID(r.c.opt.Subjects)
	ctx, cancel := context.WithTimeout(r.posts, c.opt.recording)
	defer cancel()
	bucket, err := c.progress(ctx)
	if err == nil {
		_, err = bucket.Put(ctx, progressKey(own), message.EncodeProgress(b.items))
	}
	b.saved = err == nil
	c.mu.Lock()
	if err == nil {
		delete(c.batches, own)
	} else {
		c.batches[own] = b
	}
	c.mu.Unlock()
	if err == nil {
		c.trouble.clear(partStore)
	} else if err = fmt.Errorf("store the progress of batch %s: %w", own, err); c.trouble.set(partStore, err) {
		c.log.Warn("could not store the progress of a batch, retrying", "err", err, "seq", m.Seq)
	}
}

// concluded makes the verdict of a batch when all elements are decided.
func (r *pass) concluded(lm *lane.Message, posts *message.Posts, b *batch) lane.Answer {
	c, m, t := r.c, lm.Content.(*item), triesOf(lm)
	d := c.opt.Reader.Decide(posts, b.items)
	d.Tries, d.At = t.known(), time.Now()
	if d.Status == 0 { // an earlier process had the last answer
		d.Status = b.items[len(b.items)-1].Status
	}
	v := &verdictNote{kind: m.Address.Kind, decision: d, connection: m.connection}
	posted := d.Reason == ""
	if posted {
		v.outcome = c.outcome(m, d, t)
	} else {
		r.dead(m, t, d.Reason)
	}
	// The verdict is kept as that of a message that was sent, because some of its
	// elements may have been.
	return lane.Answer{Verdict: &lane.Verdict{Posted: posted, Sent: true, Note: v}}
}

// expired decides the elements that are left of a batch that is too old. It
// returns false if the message is no batch.
func (r *pass) expired(lm *lane.Message, reason string) (lane.Answer, bool) {
	m := lm.Content.(*item)
	posts, err := m.split()
	if err != nil || !posts.Batch {
		return lane.Answer{}, false
	}
	b, answer := r.resume(lm, posts)
	if b == nil {
		return answer, true
	}
	if t := triesOf(lm); t.detail != "" && len(b.items) < len(posts.Elements) { // the next one was tried
		b.items = append(b.items, message.ElementResult{Status: t.status, Error: reason})
	}
	for len(b.items) < len(posts.Elements) {
		b.items = append(b.items, message.ElementResult{Error: reason})
	}
	return r.concluded(lm, posts, b), true
}

// unsaved returns the batch if its progress could not be stored, else a new one.
func (c *Consumer) unsaved(own string) *batch {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b := c.batches[own]; b != nil {
		return b
	}
	return &batch{}
}

// progressOf reads how far an earlier process came with a batch.
func (c *Consumer) progressOf(ctx context.Context, m *item, elements int) ([]message.ElementResult, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opt.recording)
	defer cancel()
	bucket, err := c.progress(ctx)
	if err != nil {
		return nil, err
	}
	own := m.UniqueID(c.opt.Subjects)
	entry, err := bucket.Get(ctx, progressKey(own))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the progress of batch %s: %w", own, err)
	}
	items, ok := message.DecodeProgress(entry.Value(), elements)
	if !ok {
		c.log.Warn("progress of a batch is malformed, posting it from its first element", "seq", m.Seq)
	}
	return items, nil
}

// progress opens the bucket that replicas share. Progress is stored there, under
// a key for each batch. The bucket drops old entries by itself.
func (c *Consumer) progress(ctx context.Context) (jetstream.KeyValue, error) {
	c.mu.Lock()
	bucket := c.bucket
	c.mu.Unlock()
	if bucket != nil {
		return bucket, nil
	}
	bucket, err := publisher.OpenBucket(ctx, c.opt.JetStream, c.opt.Subjects.ReplicasBucket())
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.bucket = bucket
	c.mu.Unlock()
	return bucket, nil
}

// progressKey is the key of a batch's progress.
func progressKey(own string) string { return "batch." + strings.ReplaceAll(own, ":", "-") }
