// Package auth owns the API token: it gets it, shares it, renews it and drops it.
//
// A [Manager] holds one token for the whole process. Reading it is one atomic load; while none is held, any number
// of callers wait on one request, each able to leave by its own context. [Manager.Run] renews ahead of the
// expiry; without it tokens are fetched when a caller asks. [Transport] is the http.RoundTripper that carries the
// token and replays a request once when the API refuses it.
//
// # How long a token lasts
//
// `expires` is read in any ISO 8601 spelling, a missing offset meaning UTC; if it is missing, unusable or without
// an offset, the `exp` of a JWT counts; if both fail, a life of ten minutes is assumed. The server's Date header
// shows whether its clock and ours agree. If they do not, the life by the server's clock is measured off on ours.
// No token is handed out within a margin of a tenth of its life (30 s at most) before its end, and Run renews it
// after 75 to 85 % of its life.
//
// # Refused tokens
//
//  1. A 401 for a token that is no longer held has the request sent again with the one held, and nothing else.
//  2. Otherwise exactly the refused token is dropped, and all callers wait for the next one.
//  3. A token is not dropped if others are served with it: a resource that refuses it gets its 401 back. A token
//     counts as such if it was accepted after it had been refused. One that follows a token that worked is kept
//     for 2 s to find out. Once a minute such a refusal drops the token all the same.
//  4. Tokens that are refused within 10 s of their issue did not last. From the second in a row on, the next is
//     requested 1 s later, then ever later: up to 2 s if they worked at first, up to 2 min if they never did.
//
// # Failures
//
// A refused key (status 400, 401, 403, or success false under 2xx) is an operator's problem: it is tried again
// after 5 s, then ever more slowly up to 2 min, and at once on [Manager.Retry]. Any other failure is trouble of
// the API or its address; it is tried again after 500 ms to 30 s, and not before a Retry-After. Tokens
// that follow each other within 10 s are requested at least a second apart. Each such time is logged when it begins, changes and ends.
package auth
