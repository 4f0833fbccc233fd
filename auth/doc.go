// Package auth manages the API token: it requests, shares, renews and drops it.
//
// A [Manager] holds one token for the whole process. Reading it is one atomic load. If there is none, all callers
// wait for one shared request, each until its own context ends. [Manager.Run] renews the token before it expires;
// without Run, tokens are requested on demand. [Transport] is the http.RoundTripper that adds the token to requests
// and replays a request once if the API refuses the token.
//
// # How long a token lasts
//
// `expires` is accepted in any ISO 8601 form; without an offset it is in UTC. If it is missing, unusable or without
// an offset, the `exp` of a JWT is used. If both fail, a lifetime of ten minutes is assumed. The server's Date header
// shows whether its clock agrees with ours. If not, the lifetime is taken from the server's clock and counted on
// ours. No token is returned in the last tenth of its lifetime (30 s at most), and Run renews it after 75 to 85 %.
//
// # Refused tokens
//
//  1. After a 401 for a token that was replaced in the meantime, the request is only sent again with the new token.
//  2. Otherwise the refused token is dropped, and all callers wait for the next one.
//  3. A token is kept if other requests succeed with it; the refused request returns its 401. This is so if the token
//     was accepted after it had been refused. A token that follows a working one is kept for 2 s to find out. Once a
//     minute such a refusal drops the token nevertheless.
//  4. If tokens are refused within 10 s of their issue, token requests are spaced out from the second such token in a
//     row: by 1 s at first, then up to 2 s if the tokens worked at first, and up to 2 min if they never did.
//
// # Failures
//
// A refused key (status 400, 401 or 403, or a 2xx answer with success false) needs an operator. It is retried after
// 5 s, with growing delays up to 2 min, and at once after [Manager.Retry]. Other failures concern the API or its
// address. They are retried after 500 ms to 30 s, and not before a Retry-After. Tokens that follow each other within
// 10 s are requested at least a second apart. A failure is logged when it begins, changes and ends.
package auth
