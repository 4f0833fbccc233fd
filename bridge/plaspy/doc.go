// Package plaspy speaks the Plaspy REST API: typed calls, one error type, one budget in front of all of them.
//
// # A request's way
//
// A [Client] method takes a token from auth (waiting where there is none), then a place in the [Budget], and
// only then does [Options].Timeout begin. The wire below counts the request, obeys 429 and 503, and bounds what
// is read. Answers are judged by status, by `success` and by shape, so that a method's error is nil only if the
// API said what its documentation promises. Redirects are not followed: a 3xx is an error.
//
// Everything that fails is an [*Error], except what never became a request: an [*IDError], [ErrNoBudget], or a
// context that ended. [Classify] says what to do about any of them, [IsOutage] whether the API seems to be down,
// and a [Circuit] turns a row of those into a pause.
//
// # Concurrency
//
// Every type is safe for concurrent use. No goroutine outlives a call; the budget's timer runs only while
// somebody waits or the API throttles.
package plaspy
