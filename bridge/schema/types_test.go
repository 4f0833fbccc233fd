package schema_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"plaspy-bridge/bridge/schema"
	"plaspy-bridge/bridge/schema/plaspy"
	"plaspy-bridge/publisher"
)

// typed are the schemas of bodies and the types printed for them. A type that has
// several forms inbound is checked against the one that it is written in.
var typed = map[string]any{
	"location": plaspy.Location{}, "locationEvent": plaspy.LocationEvent{}, "alertEvent": plaspy.AlertEvent{}, "device": plaspy.Device{}, "deviceEvent": plaspy.DeviceEvent{},
	"result": plaspy.Result{}, "result/properties/items/items": plaspy.ResultItem{}, "oneLocation/anyOf/0": plaspy.InboundLocation{},
	"alertRange": plaspy.Range{}, "apiAnswer": plaspy.APIAnswer{}, "devicesAnswer": plaspy.DevicesAnswer{}, "deviceAnswer": plaspy.DeviceAnswer{}, "lastAnswer": plaspy.LastAnswer{},
	"locationsAnswer": plaspy.LocationsAnswer{}, "alertsAnswer": plaspy.AlertsAnswer{}, "alertsAnswer/properties/alerts/items": plaspy.HistoricAlert{},
	"why": plaspy.WhyAnswer{}, "decision": plaspy.Decision{}, "pollAnswer": plaspy.PollAnswer{},
	"effect": plaspy.ControlEffect{}, "controlEntry": plaspy.ControlEntry{}, "fleetControlEntry": plaspy.FleetControlEntry{},
}

// members collects the properties of a schema and whether each is required in
// every form.
func (a *asyncapi) members(s map[string]any, into map[string]bool) {
	properties, _ := s["properties"].(map[string]any)
	required, _ := s["required"].([]any)
	for name := range properties {
		into[name] = into[name] || slices.Contains(required, any(name))
	}
	for _, list := range []string{"allOf", "anyOf"} {
		forms, _ := s[list].([]any)
		for _, form := range forms {
			form := form.(map[string]any)
			if to, ok := form["$ref"].(string); ok {
				form = a.object(strings.TrimPrefix(to, "#"))
			}
			inner := map[string]bool{}
			a.members(form, inner)
			for name, is := range inner {
				into[name] = into[name] || is && list == "allOf"
			}
		}
	}
}

func (a *asyncapi) membersOf(t *testing.T, path string) map[string]bool {
	t.Helper()
	var v any = a.object("/components/schemas")
	for step := range strings.SplitSeq(path, "/") {
		switch of := v.(type) {
		case map[string]any:
			v = of[step]
		case []any:
			v = of[step[0]-'0']
		}
	}
	s, ok := v.(map[string]any)
	if !ok {
		t.Fatalf("no schema %s", path)
	}
	into := map[string]bool{}
	a.members(s, into)
	return into
}

// goMembers are the JSON members of a struct, embedded ones included, and whether
// each is always written.
func goMembers(of reflect.Type) map[string]bool {
	all := map[string]bool{}
	for _, f := range reflect.VisibleFields(of) {
		if tag := f.Tag.Get("json"); tag != "" && tag != "-" {
			name, options, _ := strings.Cut(tag, ",")
			all[name] = options == ""
		}
	}
	return all
}

// typeScriptMembers are the members of an interface, and whether each is always
// there.
func typeScriptMembers(t *testing.T, source, name string) map[string]bool {
	t.Helper()
	found := regexp.MustCompile(`(?s)\nexport interface ` + name + `(?: extends (\w+))? \{\n(.*?)\n\}`).FindStringSubmatch(source)
	if found == nil {
		t.Fatalf("no interface %s", name)
	}
	all := map[string]bool{}
	if found[1] != "" {
		all = typeScriptMembers(t, source, found[1])
	}
	for _, m := range regexp.MustCompile(`(?m)^  (\w+)(\??): `).FindAllStringSubmatch(found[2], -1) {
		all[m[1]] = m[2] == ""
	}
	return all
}

// TestTypesMatchTheSchemas keeps the printed types and the schemas from drifting
// apart.
func TestTypesMatchTheSchemas(t *testing.T) {
	a := read(t, "plaspy")
	source, err := schema.Types("typescript", "plaspy")
	if err != nil {
		t.Fatal(err)
	}
	for path, v := range typed {
		want := a.membersOf(t, path)
		if path == "device" {
			want["id"] = true // Go has no optional string here
		}
		of := reflect.TypeOf(v)
		if got := goMembers(of); !reflect.DeepEqual(got, want) {
			t.Errorf("%s in Go: members %v, want %v", of.Name(), got, want)
		}
		if path == "device" {
			want["id"] = false
		}
		if got := typeScriptMembers(t, string(source), of.Name()); !reflect.DeepEqual(got, want) {
			t.Errorf("%s in TypeScript: members %v, want %v", of.Name(), got, want)
		}
	}
	forms := goMembers(reflect.TypeFor[plaspy.InboundAlert]())
	for name := range a.membersOf(t, "inboundAlert") {
		if _, ok := forms[name]; !ok && name != "alert" { // read from an event, never written
			t.Errorf("InboundAlert has no %s", name)
		}
	}
}

// TestExamplesDecode decodes the examples of the schemas, strictly.
func TestExamplesDecode(t *testing.T) {
	a := read(t, "plaspy")
	for path, v := range typed {
		s, _ := a.at("/components/schemas/" + path).(map[string]any)
		examples, _ := s["examples"].([]any)
		for _, e := range examples {
			text, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			d := json.NewDecoder(bytes.NewReader(text))
			d.DisallowUnknownFields()
			if err := d.Decode(reflect.New(reflect.TypeOf(v)).Interface()); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
}

// TestPrintedCopies keeps the copies that the examples use as they are printed.
func TestPrintedCopies(t *testing.T) {
	for language, file := range map[string]string{"go": "plaspy/plaspy.go", "typescript": "js/plaspy.mts"} {
		file = filepath.Join("../../deploy/examples", file)
		want, err := schema.Types(language, "plaspy")
		if err != nil {
			t.Fatal(err)
		}
		if *update {
			if err := os.WriteFile(file, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is out of date; go test ./bridge/schema -update writes it: %v", file, err)
		}
	}
	if _, err := schema.Types("cobol", "plaspy"); err == nil || !strings.Contains(err.Error(), "typescript") {
		t.Errorf("types for cobol: %v", err)
	}
}

// program prints the names that the printed Go file derives from the prefix.
const program = `package main

import (
	"fmt"

	"example.com/fleet/plaspy"
)

func main() {
	fmt.Println(plaspy.EventsStream, plaspy.InboundStream, plaspy.ResultsStream, plaspy.DeadLettersStream, plaspy.LastBucket, plaspy.ControlBucket,
		plaspy.LocationSubject("dev 1"), plaspy.AlertSubject("d", "a.b"), plaspy.DeviceSubject("d"), plaspy.InLocationSubject("d"), plaspy.InAlertSubject("d"),
		plaspy.ResultSubject(plaspy.KindAlert, "d"), plaspy.DeadLetterSubject(plaspy.KindLocation, "d"), plaspy.QuerySubject("why", "d"),
		plaspy.DeviceControlKey("d 1"), plaspy.GroupControlKey("g"), plaspy.FleetControlKey)
}
`

// TestPrintedGoCompiles uses the printed file of another prefix in a module of its
// own, which has no dependencies.
func TestPrintedGoCompiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	source, err := schema.Types("go", "my-fleet")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"go.mod": "module example.com/fleet\n\ngo 1.21\n", "main.go": program, "plaspy/plaspy.go": string(source)} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) string {
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("go %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	run("vet", "./...")
	const s = publisher.Subjects("my-fleet")
	want := fmt.Sprintln(s.Events(), s.Inbound(), s.Results(), s.DeadLetters(), s.LastBucket(), s.ControlBucket(),
		s.Location("dev=201"), s.Alert("d", "a=2Eb"), s.Device("d"), s.InLocation("d"), s.InAlert("d"), s.Result("alert", "d"), s.DeadLetter("location", "d"), s.API()+".why.d", "device.d=201", "group.g", "fleet")
	if got := run("run", "."); got != want {
		t.Errorf("got  %swant %s", got, want)
	}
}

// TestPrintedTypeScriptCompiles wants the compiler of the JavaScript examples.
func TestPrintedTypeScriptCompiles(t *testing.T) {
	t.Parallel()
	compiler, err := filepath.Abs("../../deploy/examples/js/node_modules/typescript/bin/tsc")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(compiler); err != nil {
		t.Skip("the TypeScript compiler is not installed: npm ci in deploy/examples/js")
	}
	dir := t.TempDir()
	source, err := schema.Types("typescript", "my-fleet")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "plaspy.mts"), source, 0o644); err != nil {
		t.Fatal(err)
	}
	// The library of the language alone: neither a browser nor Node is needed.
	cmd := exec.CommandContext(t.Context(), "node", compiler, "--strict", "--target", "es2020", "--lib", "es2020", "--module", "nodenext", "plaspy.mts")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(dir, "plaspy.mjs")); err != nil {
		t.Error(err)
	}
}

// TestPrintedJavaScript keeps the compiled copy of the examples up to date.
func TestPrintedJavaScript(t *testing.T) {
	t.Parallel()
	const dir = "../../deploy/examples/js"
	if _, err := os.Stat(dir + "/node_modules/typescript"); err != nil {
		t.Skip("the TypeScript compiler is not installed: npm ci in deploy/examples/js")
	}
	text, err := os.ReadFile(dir + "/package.json")
	if err != nil {
		t.Fatal(err)
	}
	var project struct{ Scripts struct{ Build string } }
	if err := json.Unmarshal(text, &project); err != nil {
		t.Fatal(err)
	}
	options, found := strings.CutPrefix(project.Scripts.Build, "tsc ")
	if !found {
		t.Fatalf("the script build of package.json: got %q, want a call of tsc", project.Scripts.Build)
	}
	out := t.TempDir()
	args := append([]string{"node_modules/typescript/bin/tsc", "--outDir", out}, strings.Fields(options)...) // npm itself takes a third of a second
	cmd := exec.CommandContext(t.Context(), "node", args...)
	cmd.Dir = dir
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	want, err := os.ReadFile(filepath.Join(out, "plaspy.mjs"))
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(dir+"/plaspy.mjs", want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(dir + "/plaspy.mjs"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("plaspy.mjs is out of date; go test ./bridge/schema -update writes it: %v", err)
	}
}

// decodes checks a message of a real run against the printed types: the decoded
// value has every field of the body.
func (r *run) decodes(m *nats.Msg) {
	r.t.Helper()
	v, err := plaspy.Decode(m.Subject, m.Header, m.Data)
	if err != nil {
		r.t.Errorf("%s %s: %v", m.Subject, m.Data, err)
		return
	}
	if letter, ok := v.(*plaspy.DeadLetter); ok {
		if letter.Reason == "" || letter.Sequence == 0 || letter.Subject == "" || !bytes.Equal(letter.Body, m.Data) || letter.Header["X-Own"] != nil && letter.Status != 404 {
			r.t.Errorf("dead letter %+v of %v", letter, m.Header)
		}
		return
	}
	if m := plaspy.ReadMetadata(m.Header); m.ID == "" || m.Time.IsZero() || !strings.HasPrefix(m.Type, "com.plaspy.") {
		r.t.Errorf("metadata %+v", m)
	}
	again, err := json.Marshal(v)
	if err != nil {
		r.t.Error(err)
		return
	}
	var got, want map[string]any
	if err := json.Unmarshal(again, &got); err != nil {
		r.t.Error(err)
	}
	if err := json.Unmarshal(m.Data, &want); err != nil {
		r.t.Error(err)
	}
	for name, value := range want { // empty is as good as absent
		if list, ok := value.([]any); value == "" || ok && len(list) == 0 {
			delete(want, name)
			delete(got, name)
		}
	}
	for _, name := range []string{"observedAt", "postedAt"} { // Go leaves out zeros at the end of a fraction
		for _, of := range []map[string]any{got, want} {
			if at, err := time.Parse(time.RFC3339, fmt.Sprint(of[name])); err == nil {
				of[name] = at.Format(time.RFC3339Nano)
			}
		}
	}
	if !reflect.DeepEqual(got, want) {
		r.t.Errorf("decoded and encoded again:\n%s\n%s", again, m.Data)
	}
}
