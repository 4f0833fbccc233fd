package gap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"plaspy-bridge/bridge/outbound/track"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/plaspy/rawjson"
	"plaspy-bridge/publisher"
)

const (
	// maxPieces caps the requests that one turn spends on a range.
	maxPieces = 16
	// maxPieceBytes is how much of a range is held in memory at once, for each
	// worker.
	maxPieceBytes = 16 << 20
	// minPiece is the narrowest range that is halved.
	minPiece = 2 * time.Second
)

// errLongGap is the error of a gap that the requests of a turn could not read, and
// that held nothing of use as far as they did.
var errLongGap = errors.New("the answers are too large to read and contain nothing usable")

// request asks the API for a range.
type request func(ctx context.Context, id string, body []byte, opt plaspy.PostOptions) (plaspy.Answer, error)

// pieces asks for a range and hands the answers to take, in order. If an answer
// would be larger than the client accepts, the range is halved until it fits.
// until is the end of the part that was read: before to if that takes too many requests or
// bytes, or if an error ended it.
func (r *Reader) pieces(ctx context.Context, from, to time.Time, ask request, id string, take func(answer []byte) error) (until time.Time, err error) {
	ctx = plaspy.WithKind(ctx, plaspy.Poll)
	width, kept := to.Sub(from), 0
	for range maxPieces {
		end := to
		if from.Add(width).Before(to) {
			end = from.Add(width)
		}
		answer, err := ask(ctx, id, rangeBody(from, end), plaspy.PostOptions{})
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

func rangeBody(from, to time.Time) []byte {
	b := append([]byte(`{"from":"`), from.UTC().Format(time.RFC3339Nano)...)
	b = append(append(b, `","to":"`...), to.UTC().Format(time.RFC3339Nano)...)
	return append(b, `"}`...)
}

// elements calls f for each element of the array that an answer holds under a
// name. An answer without that name holds none.
func elements(answer []byte, name string, f func(raw []byte) bool) error {
	var list []byte
	if err := rawjson.Members(answer, func(key, value []byte) bool {
		if string(key) == name {
			list = value
		}
		return true
	}); err != nil {
		return fmt.Errorf("%w: %w", track.ErrFix, err)
	}
	if list == nil || rawjson.IsNull(list) {
		return nil
	}
	if err := rawjson.Elements(list, f); err != nil {
		return fmt.Errorf("%w: %s: %w", track.ErrFix, name, err)
	}
	return nil
}

// appendRows reads one entry of the alert history, which may name several
// alerts. An entry without a time in the range, or without a name, is skipped.
func (r *Reader) appendRows(rows []track.Row, raw []byte, from, to time.Time, f *track.Fix) []track.Row {
	row := track.Row{Latitude: f.Latitude, Longitude: f.Longitude}
	var names []string
	_ = rawjson.Members(raw, func(key, value []byte) bool { // checked by the walk around it
		switch string(key) {
		case "dateTime":
			row.DateTime = value
		case "latitude":
			if _, err := track.Degrees(value, "latitude", 90); err == nil {
				row.Latitude = value
			}
		case "longitude":
			if _, err := track.Degrees(value, "longitude", 180); err == nil {
				row.Longitude = value
			}
		case "text":
			if len(value) > 2 && value[0] == '"' {
				row.Texts = slices.Concat([]byte("["), value, []byte("]"))
			}
		case "alerts":
			names = track.Strings(value)
		}
		return true
	})
	var err error
	if row.Time, err = r.opts.Parser.Time(row.DateTime); err != nil || row.Time.Before(from) || row.Time.After(to) {
		return rows
	}
	for _, row.Alert = range names {
		if row.Token, err = publisher.Token(row.Alert); err == nil {
			rows = append(rows, row)
		}
	}
	return rows
}
