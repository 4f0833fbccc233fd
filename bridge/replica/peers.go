package replica

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/publisher"
)

// Peer is a replica as one who does not take part sees it.
type Peer struct {
	ID string
	// Settings are its Options.Settings; nil: an earlier version's.
	Settings map[string]string
	// Age is how long ago it last renewed its lease, by the server's clock.
	Age time.Duration
}

// Differs gives the names of the settings that the peer was told otherwise.
func (p Peer) Differs(settings map[string]string) []string { return differing(settings, p.Settings) }

// Peers reads which replicas live, by id. It changes nothing, and gives none
// where there is no bucket.
func Peers(ctx context.Context, js jetstream.JetStream, subjects publisher.Subjects) ([]Peer, error) {
	kv, err := js.KeyValue(ctx, subjects.ReplicasBucket())
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", subjects.ReplicasBucket(), err)
	}
	w, err := kv.Watch(ctx, memberPrefix+">", jetstream.IgnoreDeletes())
	if err != nil {
		return nil, fmt.Errorf("read replicas: %w", err)
	}
	defer func() { _ = w.Stop() }()
	var list []Peer
	for {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("read replicas: %w", context.Cause(ctx))
		case e, ok := <-w.Updates():
			if !ok {
				return nil, errors.New("read replicas: it ended before its time")
			}
			if e == nil {
				return living(ctx, js, subjects, list)
			}
			var r record
			if json.Unmarshal(e.Value(), &r) == nil && !r.Left {
				list = append(list, Peer{ID: r.ID, Settings: r.Settings, Age: time.Duration(e.Created().UnixNano())})
			}
		}
	}
}

// living turns times into ages, by the clock that they were taken from, and
// leaves out whose lease is over.
func living(ctx context.Context, js jetstream.JetStream, subjects publisher.Subjects, list []Peer) ([]Peer, error) {
	st, err := js.Stream(ctx, publisher.BucketStream(subjects.ReplicasBucket()))
	if err != nil {
		return nil, fmt.Errorf("read replicas: %w", err)
	}
	now := time.Duration(st.CachedInfo().TimeStamp.UnixNano())
	for i := range list {
		list[i].Age = now - list[i].Age
	}
	list = slices.DeleteFunc(list, func(p Peer) bool { return p.Age > DefaultLease })
	slices.SortFunc(list, func(a, b Peer) int { return strings.Compare(a.ID, b.ID) })
	return list, nil
}

// Needs lists the permissions that a [Group] needs.
func Needs(subjects publisher.Subjects) []publisher.Permission {
	return publisher.Watching(subjects.ReplicasBucket(), "replicas cannot share the work")
}
