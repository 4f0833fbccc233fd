// Package plaspy speaks the Plaspy REST API: typed calls, one error type, one budget in front of all of them.
//
// # A request's way
//
// A [Client] method waits for a token from auth, then for a place in the [Budget], and only then does
// [Options].Timeout begin. The wire below counts the request, obeys 429 and 503, and bounds the answer. Answers are
// judged by status, by `success` and by shape, so that a method's error is nil only if the API answered as
// documented. Redirects are not followed: a 3xx is an error. [Connections] leaves connections that are dead or lead
// to a failing server.
//
// # Failures
//
// A failure is an [*Error]. If no request was sent, it is an [*IDError], [ErrNoBudget] or the error of a context.
// [Classify] returns how to handle any of them. Only the API itself can refuse a request for good: its
// body is a JSON object with `success` or `error`. Any other answer is [Foreign] and says nothing about the request.
//
// If the text of an answer reports that the token is expired or invalid, the request is sent once more with another
// token, as after a 401. New tokens are requested for that reason once a minute at most.
//
// A 429 concerns one device alone until several devices in a row have it, and no call asks for that device until
// its Retry-After has passed. Any other 429 lowers or stops the budget.
//
// With [Budget.LimitDay], the usage that answers state paces requests so that it lasts until midnight UTC: see
// package daily.
//
// [IsOutage] reports whether a failure shows the API to be down, and a [Circuit] turns a row of those into a pause.
// Foreign answers count in it only while [Client.Answered] stands still.
//
// # Secrets
//
// The key and the tokens are removed from everything that a method returns, answers included.
//
// # Concurrency
//
// Every type is safe for concurrent use. No goroutine outlives a call; the budget's timer runs only while a caller
// waits or the API throttles.
package plaspy
