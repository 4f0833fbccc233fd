package deadletter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// complete reports a letter that cannot go back, whatever the streams are now. The
// error wraps [ErrNotBack].
func complete(l *Letter) error {
	switch {
	case l.Truncated:
		return fmt.Errorf("%w: %d has only part of its body", ErrNotBack, l.Seq)
	case l.Original == "":
		return fmt.Errorf("%w: %d has no subject to go back to", ErrNotBack, l.Seq)
	case !literal(l.Original):
		return fmt.Errorf("%w: no message can have the subject %q of %d", ErrNotBack, l.Original, l.Seq)
	}
	return nil
}

// literal reports whether a message can be published to a subject.
func literal(subject string) bool {
	return !strings.ContainsAny(subject, " \t\r\n") &&
		!slices.ContainsFunc(strings.Split(subject, "."), func(token string) bool { return token == "" || token == "*" || token == ">" })
}

// accepted reports a subject that the inbound stream does not take. The error then
// wraps [ErrNotBack]: another stream could take the message, and it would be lost.
func (b *Box) accepted(ctx context.Context, subject string) error {
	name, err := b.js.StreamNameBySubject(ctx, subject)
	if errors.Is(err, jetstream.ErrStreamNotFound) || err == nil && name != b.subjects.Inbound() {
		return fmt.Errorf("%w: %s is not a subject of stream %s", ErrNotBack, subject, b.subjects.Inbound())
	}
	if err != nil {
		return fmt.Errorf("look up the stream of %s: %w", subject, err)
	}
	return nil
}

// forecast is what a dry run knows of the inbound stream. It asks once for each
// subject and once for the limit on messages.
type forecast struct {
	box      *Box
	subjects map[string]error
	most     int // bytes of a message; 0 means that it is not known yet
}

// replay reports why a letter would not go back. The error then wraps [ErrNotBack],
// or the server did not answer.
func (f *forecast) replay(ctx context.Context, l *Letter) error {
	err, known := f.subjects[l.Original]
	if !known {
		if err = f.box.accepted(ctx, l.Original); err == nil || errors.Is(err, ErrNotBack) {
			f.subjects[l.Original] = err
		}
	}
	if err != nil {
		return err
	}
	if f.most == 0 {
		st, err := f.box.js.Stream(ctx, f.box.subjects.Inbound())
		if err != nil {
			return fmt.Errorf("look up stream %s: %w", f.box.subjects.Inbound(), err)
		}
		f.most = int(f.box.js.Conn().MaxPayload())
		if limit := int(st.CachedInfo().Config.MaxMsgSize); limit > 0 {
			f.most = min(f.most, limit)
		}
	}
	// A replay leaves headers out if the message is too large with them.
	if len(l.Body) > f.most {
		return fmt.Errorf("%w: the %d bytes of %d are too large for stream %s, which takes %d", ErrNotBack, len(l.Body), l.Seq, f.box.subjects.Inbound(), f.most)
	}
	return nil
}
