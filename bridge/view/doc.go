// Package view serves the live view: one page that shows the fleet, its polls and
// the health of the bridge, and updates itself.
//
// [View] is the handler. [View.Run] is its only goroutine. Once a second it asks
// the [Source] for the devices that changed and writes the changes into one JSON
// frame, the same bytes for every open page. A page opens a stream of server-sent
// events. It gets a snapshot of everything first and frames from then on, so the
// work depends on the number of changes and not on the number of pages. A page that
// does not read its frames in time is disconnected and reconnects. The number of
// pages is limited.
//
// The page and all its files are in the binary. It requests nothing from other
// hosts, runs only its own scripts, and inserts data of the API as text, never as
// markup. Its content security policy enforces that.
//
// The handler does not authenticate; its server has to.
package view
