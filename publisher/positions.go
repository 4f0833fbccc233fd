package publisher

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Header and value of the message that marks a key of a bucket as deleted.
const (
	headerOperation = "KV-Operation"
	deleted         = "DEL"
)

// Positions edits the last-location bucket, which the server otherwise fills by
// itself. It is safe for concurrent use.
type Positions struct{ p *Publisher }

// Positions returns the editor of the last-location bucket.
func (p *Publisher) Positions() Positions { return Positions{p} }

// Remove deletes a device's key. It does nothing if there is no such key, or no
// bucket.
func (b Positions) Remove(ctx context.Context, device string) error {
	key := b.p.subjects.LastKey(device)
	last, err := b.entry(ctx, key)
	if err != nil || last == nil || last.Header.Get(headerOperation) != "" {
		return err
	}
	marker := &nats.Msg{Subject: key, Header: nats.Header{headerOperation: {deleted}}}
	_, err = b.p.js.PublishMsg(ctx, marker, jetstream.WithExpectLastSequencePerSubject(last.Sequence))
	if err != nil && judge(err) != fenced { // a newer location came meanwhile
		return fmt.Errorf("delete the last position: %w", explain(err))
	}
	return nil
}

// Restore puts the device's last location of the events stream back, if its key
// was deleted.
func (b Positions) Restore(ctx context.Context, device string) error {
	key := b.p.subjects.LastKey(device)
	last, err := b.entry(ctx, key)
	if err != nil || last == nil || last.Header.Get(headerOperation) == "" {
		return err
	}
	s, err := b.p.Last(ctx, b.p.subjects.Location(device))
	if err != nil || s == nil {
		return err
	}
	_, err = b.p.js.PublishMsg(ctx, copyOf(key, s.Header, s.Body, s.Seq), jetstream.WithExpectLastSequencePerSubject(last.Sequence))
	if err != nil && judge(err) != fenced {
		return fmt.Errorf("restore the last position: %w", explain(err))
	}
	return nil
}

// entry reads the last message of a key from the bucket's leader; nil means that
// there is none.
func (b Positions) entry(ctx context.Context, key string) (*jetstream.RawStreamMsg, error) {
	m, err := NewLeader(b.p.js, BucketStream(b.p.subjects.LastBucket())).Last(ctx, key)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return nil, nil // the operator may do without the bucket
	case err != nil:
		return nil, fmt.Errorf("read the last position: %w", err)
	}
	return m, nil
}

// copyOf returns an event as an entry of the last-location bucket.
func copyOf(key string, header nats.Header, body []byte, seq uint64) *nats.Msg {
	out := &nats.Msg{Subject: key, Header: maps.Clone(header), Data: body}
	// These belong to the events stream.
	delete(out.Header, nats.MsgIdHdr)
	delete(out.Header, nats.ExpectedLastSubjSeqHdr)
	out.Header.Set(headerOrigin, strconv.FormatUint(seq, 10))
	return out
}
