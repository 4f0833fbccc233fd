// Package fault lets a simulated API go wrong.
//
// A [Rule] says which requests fail and how. [Rules] holds the rules that are
// switched on and picks one for each request. The picked rule then acts by the
// [Effect] of its kind:
//
//   - Delays: the request waits. Rules.Pick returns the sum of all delays.
//   - Replaces: Rule.Replace answers instead of the API, or ends the request
//     without an answer.
//   - Cuts: Rule.Cut sends the first half of the API's answer.
//   - Distorts: Rule.Location and Rule.List change the API's answer, which
//     remains complete and well-formed HTTP.
//
// The package knows HTTP, but neither the account nor its devices: the server
// passes each answer in as bytes. Rules is safe for concurrent use; a Rule that
// was picked is the caller's own copy.
package fault
