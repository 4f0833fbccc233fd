package track

import (
	"testing"

	"plaspy-bridge/bridge/mutation"
)

// TestMutations checks that the model notices each of the faults:
// go test ./bridge/outbound/track -run TestMutations -mutate -v.
func TestMutations(t *testing.T) {
	mutation.Test(t, faults, "-run", "^TestModel(Long|Histories)$", "-track.steps", "150000")
}

var faults = []mutation.Fault{
	{"every answer is news", "track.go", "t.Known && hash == t.Last.Hash ||", ""},
	{"no alert is cleared", "alerts.go", "if !slices.Contains(f.Alerts, a) {", "if false {"},
	{"an alert is raised with every fix", "alerts.go", "if !slices.Contains(raised, a) {", "if true {"},
	{"a fix does not clear silent", "alerts.go", "if silent {", "if false {"},
	{"changes that a crash cut off are forgotten", "publication.go", "if u := t.unpublished; u != nil {", "if u := t.unpublished; false {"},
	{"silent is cleared twice after a crash", "publication.go", "silent = silent && !c.Own", "_ = c"},
	{"the fixes of a gap do not follow each other", "publication.go", "raised = f.Alerts\n", "_ = raised\n"},
	{"rows are published again", "publication.go", "if !known[k] && ", "if "},
	{"a location does not show that the history was not read", "publication.go", "Since: s.since, ", ""},
	{"no row is published", "publication.go", "	p.rows(t, n)\n", ""},
	{"a history that was not read is forgotten", "publication.go", "	t.HistoryFrom = InstantOf(s.since)\n", ""},
	{"a restart forgets the history that was not read", "image.go", "im.history = InstantOf(at)", "_ = at"},
	{"alerts of other fixes of the last one's time are published again", "image.go", "if im.others {", "if false {"},
	{"a fix of the newest time does not show that there are others", "times.go", "!slices.Contains(t.list(), InstantOf(fix))", "len(slices.Clone(t.list())) > 0"},
	{"alerts that a restart cannot know count as unpublished", "publication.go", " && !known[alertKey{anyAlert, k.at}]", ""},
	{"polled alerts are not remembered for the history", "track.go", "t.history && !slices.Contains(t.seen, k) {", "false && k.at > 0 {"},
	{"rows that were read from the stream are not remembered", "image.go", "t.seen = im.published", ""},
	{"the location's fence does not move", "publication.go", "t.Seq, t.Known, t.Last, t.SeenAt, t.refused = seq,", "t.Seq, t.Known, t.Last, t.SeenAt, t.refused = t.Seq,"},
	{"the fence of an alert does not move", "publication.go", "	t.setFence(publisher.Encode(s.change.Alert), seq)\n", ""},
	{"a location that aged out keeps its fence", "track.go", "		t.Seq = 0\n", ""},
	{"alerts that aged out keep their fences", "track.go", "return f.seq < first", "return false"},
	{"a location that is kept hides other replicas' rows", "image.go", "t.see(k.alert, k.at)", "_ = k"},
	{"fences are not read from the stream", "image.go", "if im.alerts[i].seq > 0 {", "if false {"},
	{"locations announce nothing", "publication.go", "Announced: announce(s.changes)", "Announced: \"\""},
	{"what a location announces counts as published", "image.go", "return last < im.seq && (a.changed == 0 || a.raised != c.Raised)", "return false && last > 0"},
	{"what a location announces counts as missing", "image.go", "return last < im.seq && (a.changed == 0 || a.raised != c.Raised)", "return true || last > 0"},
	{"a change that was published early is published again", "image.go", "return last < im.seq && (a.changed == 0 || a.raised != c.Raised)", "return last < im.seq"},
	{"a row after the location counts as the change that it announces", "image.go", "last := a.changed\n	if !history {", "last := a.changed\n	if true {"},
	{"silent outlives the fix that it is about", "image.go", "if im.silentIsOver() {", "if false {"},
	{"silent is not read", "image.go", "t.Silent = im.silent.found && im.silent.raised", "t.Silent = false"},
	{"the bridge's own alert is one of the API", "image.go", "own := string(source) == publisher.SourceBridge ||", "own :="},
	{"alerts that changed alone are not read", "image.go", "if name, err := publisher.Decode(a.token); err == nil && a.changed > 0 && a.changed > im.seq {", "if name := a.token; false {"},
	{"alerts older than the location are applied", "image.go", "a.changed > 0 && a.changed > im.seq {", "a.changed > 0 {"},
	{"alerts that disagree with the location stay", "image.go", "if im.missing(a, c, history) && !slices.Contains(left, c) {", "if false {"},
	{"alerts that changed alone are forgotten", "track.go", "func (t *Track) Alone() bool { return t.alone }", "func (t *Track) Alone() bool { return false }"},
	{"an older fix is the newest", "times.go", "case at <= t.Newest:", "case false:"},
	{"a gap begins before the fixes of the future", "times.go", "		from = t.High.Time()\n", ""},
	{"a gap reaches into the fixes of the future", "times.go", "		to = t.Low.Time()\n", ""},
	{"the newest time does not outlive a restart", "image.go", "timesOf(s.Newest, f.Time, im.seenAt)", "timesOf(\"\", f.Time, im.seenAt)"},
	{"the newest time is not written", "publication.go", "Newest: t.Times.header(s.fix.Time, observed)", "Newest: \"\""},
	{"a location that is refused clears the fence", "publication.go", "t.refused, t.SeenAt = s.fix.Hash, observed", "t.Seq = 0"},
	{"the API's alert silent clears the bridge's own", "alerts.go", "list = append(list, AlertChange{Alert: alert})\n", "list = append(list, AlertChange{Alert: alert, Own: true})\n"},
	{"a refused event stops the others", "publication.go", "	p.steps[0].refused(&p.track, p.observed)\n	p.steps = p.steps[1:]\n", "	p.steps = nil\n"},
}
