// Package view is the live view: one page that shows the fleet, what the bridge
// does with it and how the bridge itself fares, and keeps itself up to date.
//
// [View] is the handler. [View.Run] is its only goroutine: once a second it asks
// the [Source] which devices have changed, and writes what did into one frame of
// JSON, the same bytes for every page that is open. A page gets one picture of
// everything when it opens its stream of server-sent events, and frames from then
// on, so that the work is proportional to what changes, not to how many look. A
// page that does not take its frames in time is cut off, and begins anew; there is
// room for a fixed number of them.
//
// The page and all it needs are in the binary: it asks no other host for anything,
// runs only the scripts that belong to it, and puts what comes from the API into
// the document as text and never as markup. Its policy says so to the browser.
//
// Whom to let in is up to whoever serves the handler.
package view
