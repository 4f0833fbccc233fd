// Package auth owns the API token: it gets it, shares it, renews it and drops it.
//
// A [Manager] holds one token for everybody in the process. Reading it is one atomic load; where none is
// held, any number of callers wait on one request, each able to leave by its own context. [Manager.Run]
// renews ahead of the expiry; without it tokens are fetched when somebody asks. [Transport] is the
// http.RoundTripper that carries the token and renews it once when the API refuses it.
//
// # When a token stops being used
//
// `expires` is read in any ISO 8601 spelling, a missing offset meaning UTC; where that is missing, of no
// use or without an offset, the `exp` of a JWT counts; where both fail, a life of ten minutes is assumed.
// The server's Date header shows whether its clock and ours agree. Where they do not, the life by the
// server's clock is measured off on ours. No token is handed out within a margin of a tenth of its life
// (30 s at most) before its end, and Run renews it after 75 to 85 % of its life.
//
// # Failures
//
// A refused key (success false, or status 400, 401, 403; but never 429 or 503) is an operator's problem:
// it is tried again after 5 s, then ever more slowly up to 2 min, and at once on [Manager.Retry]. Anything
// else is tried again after 500 ms to 30 s, and not before a Retry-After. A token that is refused before any
// call succeeded with it spaces out the next requests, so that an API which answers 401 to everything does
// not see two token requests a poll. Each such time is logged when it begins, changes and ends.
package auth
