package outbound

import (
	"context"
	"errors"
	"time"

	"plaspy-bridge/bridge/plaspy"
)

const (
	// maxPieces is with how many requests a range is read in one turn.
	maxPieces = 16
	// maxPieceBytes is how much of a range is held in memory at once; there may be
	// as many such as there are workers.
	maxPieceBytes = 16 << 20
	// minPiece is the narrowest range that is halved.
	minPiece = 2 * time.Second
)

// errLongGap tells that a gap could not be read in a turn's requests, and
// nothing in it could be used.
var errLongGap = errors.New("the answers are larger than what can be read, and hold nothing of use")

// pieces asks for what lay in a range, and hands the answers on in their order.
// Where the answer would be larger than the client takes, the range is halved
// until it fits. until is where it stopped: short of to where that took too many
// requests or bytes, or with the error that ended it.
func (p *Pool) pieces(ctx context.Context, from, to time.Time, ask func(context.Context, []byte) (plaspy.Answer, error),
	take func(answer []byte) error,
) (until time.Time, err error) {
	ctx = plaspy.WithKind(ctx, plaspy.Poll)
	width, kept := to.Sub(from), 0
	for range maxPieces {
		end := to
		if from.Add(width).Before(to) {
			end = from.Add(width)
		}
		answer, err := ask(ctx, rangeBody(from, end))
		switch {
		case errors.Is(err, plaspy.ErrTooLarge) && width >= minPiece:
			width /= 2
			continue
		case err != nil:
			return from, err
		}
		if err := take(answer.Body); err != nil {
			return from, err
		}
		from = end
		if kept += len(answer.Body); !from.Before(to) || kept >= maxPieceBytes {
			break
		}
	}
	return from, nil
}
