// Package account holds the state of a simulated account: its devices and
// groups, the locations that its vehicles report or that a test sets, the posts,
// and the locations that clients got.
//
// An [Account] is changed by tests: AddDevice, SetLocation and so on. A [Device]
// answers requests: AppendLocation is lastLocation, Accept is a POST. Both
// record facts, which Shown, Changes and Posts return.
//
// The package knows neither HTTP nor tokens. It needs no goroutine: the state of
// a vehicle is computed from the time of the request (see package fleet).
// Account and Device are safe for concurrent use.
package account
