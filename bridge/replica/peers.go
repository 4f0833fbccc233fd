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

// Peer is a replica as seen by a process that is not a member.
type Peer struct {
	ID string
	// Settings are its Options.Settings; empty for earlier versions.
	Settings map[string]string
	// Age is how long ago it last renewed its lease, by the server's clock.
	Age time.Duration
}

// Differs returns the names of the settings that differ from the peer's.
func (p Peer) Differs(settings map[string]string) []string { return differing(settings, p.Settings) }

// Peers returns the live replicas, sorted by id. It changes nothing, and returns none
// if there is no bucket.
func Peers(ctx context.Context, js jetstream.JetStream, subjects publisher.Subjects) ([]Peer, error) {
	kv, err := publisher.OpenBucket(ctx, js, subjects.ReplicasBucket())
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []Peer
	err = publisher.ReadBucket(ctx, kv, memberPrefix+">", func(e jetstream.KeyValueEntry) {
		var r record
		if json.Unmarshal(e.Value(), &r) == nil && !r.Left {
			list = append(list, Peer{ID: r.ID, Settings: r.Settings, Age: time.Duration(e.Created().UnixNano())})
		}
	})
	if err != nil {
		return nil, err
	}
	return aged(ctx, js, subjects, list)
}

// aged converts times to ages by the server's clock, and leaves out replicas with an
// expired lease.
func aged(ctx context.Context, js jetstream.JetStream, subjects publisher.Subjects, list []Peer) ([]Peer, error) {
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

// Difference is a live replica with different settings.
type Difference struct {
	Replica  string   // its id
	Settings []string // the names in Options.Settings, sorted
}

// String returns a short description such as "b: devices, limits".
func (d Difference) String() string { return d.Replica + ": " + strings.Join(d.Settings, ", ") }

// Differences lists the live replicas with different settings, by their ids. A replica
// of an earlier version, which does not publish its settings, is not listed.
func (g *Group) Differences() []Difference {
	if list := g.differences.Load(); list != nil {
		return *list
	}
	return nil
}

// differing returns the names of settings that differ between two replicas. Names
// that only one of them has belong to another version and are ignored.
func differing(mine, theirs map[string]string) (names []string) {
	for name, digest := range theirs {
		if own, known := mine[name]; known && own != digest {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
