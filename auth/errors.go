package auth

import (
	"errors"
	"fmt"
	"time"
)

// ErrForeignHost is returned by [Transport] for a request to any other scheme, host or port than the token
// endpoint's: the token goes nowhere else.
var ErrForeignHost = errors.New("request to another host than the API's")

// Error is a failed request for a token. Its text holds neither key nor token.
type Error struct {
	Status     int           // of the answer; 0 if none came
	Refused    bool          // the key was refused: a person is needed
	Message    string        // the reason, printable and of bounded length
	RetryAfter time.Duration // as the API asked; 0 if it did not
	Err        error         // the cause, such as a transport error; may be nil
}

// Error returns the reason and the status.
func (e *Error) Error() string {
	text := "token request: "
	if e.Refused {
		text = "key refused: "
	}
	text += e.Message
	if e.Status != 0 {
		text += fmt.Sprintf(" (status %d)", e.Status)
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
