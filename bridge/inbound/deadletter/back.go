package deadletter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// checkLetter returns an error that wraps [ErrNotBack] if a letter can never go back,
// whatever the state of the streams.
func checkLetter(l *Letter) error {
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

// checkSubject returns an error that wraps [ErrNotBack] if the inbound stream does not
// take a subject: another stream could take the message, and it would be lost.
func (b *Box) checkSubject(ctx context.Context, subject string) error {
	name, err := b.js.StreamNameBySubject(ctx, subject)
	if errors.Is(err, jetstream.ErrStreamNotFound) || err == nil && name != b.subjects.Inbound() {
		return fmt.Errorf("%w: %s is not a subject of stream %s", ErrNotBack, subject, b.subjects.Inbound())
	}
	if err != nil {
		return fmt.Errorf("look up the stream of %s: %w", subject, err)
	}
	return nil
}

// dryRun holds the state of the inbound stream for a dry run. It asks the server once
// for each subject, and once for the size limit.
type dryRun struct {
	box      *Box
	subjects map[string]error
	most     int // bytes of a message; 0 means that it is not known yet
}

// check returns the reason why a letter would not go back, which wraps [ErrNotBack], or
// the error of a request to the server.
func (f *dryRun) check(ctx context.Context, l *Letter) error {
	err, known := f.subjects[l.Original]
	if !known {
		if err = f.box.checkSubject(ctx, l.Original); err == nil || errors.Is(err, ErrNotBack) {
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
