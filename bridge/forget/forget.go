// Package forget erases a device from the streams and keeps it from coming back,
// for data protection.
//
// A forgotten device has a key in the bucket that all replicas share. Each replica
// watches these keys with [List.Watch] and does not poll the device, so that
// nothing of it is published. [Erase] sets the key and removes the device's messages
// from the streams; [Undo] deletes the key. The bucket removes keys after some days,
// so that the replicas renew them.
package forget

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/auth/backoff"
	"plaspy-bridge/bridge/control"
	"plaspy-bridge/publisher"
)

// keyPrefix is that of the keys of forgotten devices in the replicas' bucket.
const keyPrefix = "forgotten."

const (
	// The waits before the bucket is opened again after a failure. The first ones are short because
	// no device is polled before, and another replica or this one may be making the bucket.
	firstRetry   = 50 * time.Millisecond
	longestRetry = time.Second
	// renewAfter is the age at which a key is written again. It is far below the age
	// at which the bucket removes it.
	renewAfter = 6 * time.Hour
)

// List is the set of forgotten devices. The zero List knows nothing yet. It is
// safe for concurrent use.
type List struct {
	tokens atomic.Pointer[map[string]struct{}] // nil means not read yet
	renew  time.Duration                       // of a test; 0 means renewAfter
}

// Has reports whether a device, by its token, must not be polled: it is forgotten,
// or it is not known yet whether it is.
func (l *List) Has(token string) bool {
	tokens := l.tokens.Load()
	if tokens == nil {
		return true
	}
	_, ok := (*tokens)[token]
	return ok
}

// Marked reports whether a device, by its token, is known to be forgotten.
func (l *List) Marked(token string) bool { return l.tokens.Load() != nil && l.Has(token) }

// Watch follows the keys until ctx is cancelled, and calls changed after each
// change. While the bucket cannot be read, the last known set holds.
func (l *List) Watch(ctx context.Context, open func(context.Context) (jetstream.KeyValue, error), log *slog.Logger, changed func()) {
	logged := ""
	backoff.Repeat(ctx, firstRetry, longestRetry, func() {
		err := l.follow(ctx, open, changed)
		if err != nil && ctx.Err() == nil && err.Error() != logged {
			logged = err.Error()
			log.Debug("could not watch the forgotten devices, retrying", "err", err)
		}
	})
}

func (l *List) follow(ctx context.Context, open func(context.Context) (jetstream.KeyValue, error), changed func()) error {
	kv, err := open(ctx)
	if err != nil {
		return err
	}
	w, err := kv.Watch(ctx, keyPrefix+"*")
	if err != nil {
		return err
	}
	defer func() { _ = w.Stop() }()
	now, complete := map[string]struct{}{}, false
	keys := map[string]jetstream.KeyValueEntry{}
	after := cmp.Or(l.renew, renewAfter)
	tick := time.NewTicker(after / 4)
	defer tick.Stop()
	for {
		var e jetstream.KeyValueEntry
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
			if err := renewKeys(ctx, kv, keys, after); err != nil {
				return err
			}
			continue
		case next, ok := <-w.Updates():
			if !ok {
				return errors.New("the watch ended")
			}
			e = next
		}
		switch {
		case e == nil: // all that were there have come
			complete = true
		case e.Operation() == jetstream.KeyValuePut:
			now[strings.TrimPrefix(e.Key(), keyPrefix)] = struct{}{}
			keys[e.Key()] = e
		default:
			delete(now, strings.TrimPrefix(e.Key(), keyPrefix))
			delete(keys, e.Key())
		}
		if old := l.tokens.Load(); complete && (old == nil || !maps.Equal(*old, now)) {
			tokens := maps.Clone(now)
			l.tokens.Store(&tokens)
			changed()
		}
		if e == nil { // a bridge that runs for minutes at a time renews them too
			if err := renewKeys(ctx, kv, keys, after); err != nil {
				return err
			}
		}
	}
}

// renewKeys writes the keys again that are older than after, unless another replica
// or [Undo] has written them since they were read.
func renewKeys(ctx context.Context, kv jetstream.KeyValue, keys map[string]jetstream.KeyValueEntry, after time.Duration) error {
	for key, e := range keys {
		if time.Since(e.Created()) < after {
			continue
		}
		_, err := kv.Update(ctx, key, e.Value(), e.Revision())
		if errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
			continue // the watch delivers what was written
		}
		if err != nil {
			return fmt.Errorf("renew %s: %w", key, err)
		}
	}
	return nil
}

// Devices returns the ids of the forgotten devices, in order.
func Devices(ctx context.Context, js jetstream.JetStream, subjects publisher.Subjects) ([]string, error) {
	kv, err := publisher.OpenBucket(ctx, js, subjects.ReplicasBucket())
	if err != nil {
		return nil, err
	}
	keys, err := kv.ListKeysFiltered(ctx, keyPrefix+"*")
	if err != nil {
		return nil, fmt.Errorf("list forgotten devices: %w", err)
	}
	var ids []string
	for key := range keys.Keys() {
		if id, err := publisher.Decode(strings.TrimPrefix(key, keyPrefix)); err == nil {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// Options are the choices of [Erase].
type Options struct {
	Inbound bool          // also the messages that wait to be posted; otherwise they are posted
	Pause   time.Duration // between two rounds; longer than replicas take to notice, and than most polls
}

// Erase has every replica forget a device, then removes its messages from the
// streams. Polls and posts that were in flight may still publish, so that it removes
// again after each pause until a round finds nothing. It returns how many messages of
// which stream it removed, and is safe to repeat.
func Erase(ctx context.Context, js jetstream.JetStream, subjects publisher.Subjects, id string, o Options) (map[string]uint64, error) {
	token, err := publisher.Token(id)
	if err != nil {
		return nil, fmt.Errorf("device id: %w", err)
	}
	kv, err := publisher.OpenBucket(ctx, js, subjects.ReplicasBucket())
	if err != nil {
		return nil, err
	}
	if _, err := kv.Put(ctx, keyPrefix+token, []byte(time.Now().UTC().Format(time.RFC3339))); err != nil {
		return nil, fmt.Errorf("keep the device from being published: %w", err)
	}
	removed := map[string]uint64{}
	const rounds = 20
	for round := range rounds {
		n, err := remove(ctx, js, places(subjects, id, o.Inbound), removed)
		if err != nil {
			return removed, err
		}
		if n == 0 && round > 0 {
			return removed, nil
		}
		select {
		case <-ctx.Done():
			return removed, context.Cause(ctx)
		case <-time.After(o.Pause):
		}
	}
	return removed, errors.New("the device is still being published; is a bridge running that is older than this command?")
}

// place is the messages of a device in one stream.
type place struct{ stream, subject string }

// places lists the messages of a device. Inbound messages come first, because a post
// adds a result.
func places(subjects publisher.Subjects, id string, inbound bool) []place {
	token := publisher.Encode(id)
	last, silent := publisher.BucketStream(subjects.LastBucket()), publisher.BucketStream(subjects.SilentBucket())
	all := []place{
		{subjects.Events(), subjects.Location(token)},
		{subjects.Events(), subjects.Alert(token, "*")},
		{subjects.Events(), subjects.Device(token)},
		{last, subjects.LastKey(token)},
		{silent, publisher.BucketKey(subjects.SilentBucket(), token)},
		{subjects.Results(), subjects.Result("*", token)},
		{subjects.DeadLetters(), subjects.DeadLetter("*", token)},
		{publisher.BucketStream(subjects.ControlBucket()), publisher.BucketKey(subjects.ControlBucket(), control.DeviceKey(id))},
	}
	if inbound {
		all = append([]place{{subjects.Inbound(), subjects.InboundOf(token)}}, all...)
	}
	return all
}

// remove purges a device's subjects and adds their numbers to removed.
func remove(ctx context.Context, js jetstream.JetStream, places []place, removed map[string]uint64) (total uint64, err error) {
	for _, p := range places {
		s, n, err := count(ctx, js, p)
		if err != nil {
			return total, err
		}
		if n == 0 {
			continue
		}
		if err := s.Purge(ctx, jetstream.WithPurgeSubject(p.subject)); err != nil {
			return total, fmt.Errorf("remove %s from %s: %w", p.subject, p.stream, err)
		}
		removed[p.stream] += n
		total += n
	}
	return total, nil
}

// count returns the number of messages of a place; 0 if there is no such stream.
func count(ctx context.Context, js jetstream.JetStream, p place) (s jetstream.Stream, n uint64, err error) {
	s, err = js.Stream(ctx, p.stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("look up %s: %w", p.stream, err)
	}
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(p.subject))
	if err != nil {
		return nil, 0, fmt.Errorf("look into %s: %w", p.stream, err)
	}
	for _, messages := range info.State.Subjects {
		n += messages
	}
	return s, n, nil
}

// Waiting returns the number of a device's messages that wait to be posted.
func Waiting(ctx context.Context, js jetstream.JetStream, subjects publisher.Subjects, id string) (uint64, error) {
	token, err := publisher.Token(id)
	if err != nil {
		return 0, fmt.Errorf("device id: %w", err)
	}
	_, n, err := count(ctx, js, place{subjects.Inbound(), subjects.InboundOf(token)})
	return n, err
}

// Undo lets a device be published again; false if it was not forgotten.
func Undo(ctx context.Context, js jetstream.JetStream, subjects publisher.Subjects, id string) (bool, error) {
	token, err := publisher.Token(id)
	if err != nil {
		return false, fmt.Errorf("device id: %w", err)
	}
	kv, err := publisher.OpenBucket(ctx, js, subjects.ReplicasBucket())
	if err != nil {
		return false, err
	}
	if _, err := kv.Get(ctx, keyPrefix+token); errors.Is(err, jetstream.ErrKeyNotFound) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("look up the device: %w", err)
	}
	if err := kv.Purge(ctx, keyPrefix+token); err != nil {
		return false, fmt.Errorf("undo: %w", err)
	}
	return true, nil
}
