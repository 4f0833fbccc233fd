package track

import (
	"encoding/binary"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
	"unique"

	"github.com/cespare/xxhash/v2"

	"plaspy-bridge/bridge/plaspy/rawjson"
)

const (
	// maxFields is the number of fields of a location that are compared one by
	// one. The rest is compared as a single field.
	maxFields = 64
	// maxFieldDepth is the number of levels of objects that are compared. Arrays
	// are compared whole.
	maxFieldDepth = 3
	// maxFieldName is the longest path in bytes; a longer one is cut.
	maxFieldName = 64
	// maxFieldsNamed is the number of changed fields that [Fields.Changed] names.
	maxFieldsNamed = 8

	// sumSize is the number of bytes that are kept of a field's hash. They only decide
	// which fields are named, so two are enough: in 65,536 changes one is not named.
	sumSize = 2

	// More stands for the fields that are not named.
	More = "…"
)

// Fields are the names of a location's fields and a hash of each value, by
// which two locations of a device are compared. They are small: devices with
// the same fields share the names.
type Fields struct {
	names unique.Handle[string] // paths, each with a line feed behind it
	sums  string                // sumSize bytes of hash for each
}

// walks reuses the buffers of a walk.
var walks = sync.Pool{New: func() any { return new(fieldWalk) }}

// fieldsOf reads the fields of a well-formed object.
func fieldsOf(raw []byte) Fields {
	w := walks.Get().(*fieldWalk)
	defer walks.Put(w)
	w.names, w.sums, w.path, w.rest = w.names[:0], w.sums[:0], w.path[:0], 0
	w.object(raw, 1)
	if w.rest != 0 {
		w.names = append(append(w.names, More...), '\n')
		w.sums = binary.LittleEndian.AppendUint16(w.sums, uint16(w.rest))
	}
	if w.text == "" || string(w.names) != w.text { // most devices of an account have the same fields
		w.last = unique.Make(string(w.names))
		w.text = w.last.Value()
	}
	return Fields{names: w.last, sums: string(w.sums)}
}

// fieldWalk goes through an object and the objects in it.
type fieldWalk struct {
	names, sums []byte
	path        []byte // of the object that is being read, with a dot behind it
	rest        uint32 // of the fields beyond the limit

	last unique.Handle[string] // the names of an earlier walk
	text string                // its value
}

func (w *fieldWalk) object(raw []byte, depth int) {
	_ = rawjson.Members(raw, func(key, value []byte) bool { // the text was checked before
		above := len(w.path)
		w.path = append(w.path, key...)
		if len(value) > 2 && value[0] == '{' && depth < maxFieldDepth {
			w.path = append(w.path, '.')
			w.object(value, depth+1)
		} else {
			w.leaf(value)
		}
		w.path = w.path[:above]
		return true
	})
}

func (w *fieldWalk) leaf(value []byte) {
	sum := uint16(xxhash.Sum64(value))
	if len(w.sums) >= sumSize*maxFields {
		w.rest += uint32(sum) | 1
		return
	}
	w.names = append(appendName(w.names, w.path), '\n')
	w.sums = binary.LittleEndian.AppendUint16(w.sums, sum)
}

// appendName appends a path. A long path is cut, and control characters are
// replaced, since a line feed ends the name.
func appendName(b, path []byte) []byte {
	start := len(b)
	cut := len(path) > maxFieldName
	if cut {
		path = path[:maxFieldName-len(More)]
		for len(path) > 0 && !utf8.Valid(path) { // the cut was inside a character
			path = path[:len(path)-1]
		}
	}
	b = append(b, path...)
	for i := start; i < len(b); i++ {
		if b[i] < ' ' {
			b[i] = '?'
		}
	}
	if cut {
		b = append(b, More...)
	}
	return b
}

// Known reports whether there are any.
func (f Fields) Known() bool { return f.sums != "" }

// Changed names the fields in which another location differs, one a line and
// at most eight: first those of the other location, in its order, then those
// that it lacks. Ignored fields are left out.
func (f Fields) Changed(to Fields, ignored []string) string {
	list := changedNames{ignored: ignored}
	if f.names == to.names {
		i := 0
		for name := range strings.Lines(to.names.Value()) {
			if f.sums[i:i+sumSize] != to.sums[i:i+sumSize] {
				list.add(name)
			}
			i += sumSize
		}
		return list.text()
	}
	before := f.byName()
	i := 0
	for name := range strings.Lines(to.names.Value()) {
		if sum, there := before[name]; !there || sum != to.sums[i:i+sumSize] {
			list.add(name)
		}
		delete(before, name)
		i += sumSize
	}
	for name := range strings.Lines(f.names.Value()) {
		if _, gone := before[name]; gone {
			list.add(name)
		}
	}
	return list.text()
}

func (f Fields) byName() map[string]string {
	m := make(map[string]string, len(f.sums)/sumSize)
	i := 0
	for name := range strings.Lines(f.names.Value()) {
		m[name] = f.sums[i : i+sumSize]
		i += sumSize
	}
	return m
}

// changedNames collects names, each with its line feed.
type changedNames struct {
	ignored []string
	b       strings.Builder
	n       int
}

func (c *changedNames) add(name string) {
	key, _, _ := strings.Cut(name[:len(name)-1], ".")
	if c.n > maxFieldsNamed || slices.Contains(c.ignored, key) {
		return
	}
	if c.b.Len() == 0 {
		c.b.Grow(128)
	}
	if c.n++; c.n > maxFieldsNamed {
		name = More + "\n"
	}
	c.b.WriteString(name)
}

func (c *changedNames) text() string { return strings.TrimSuffix(c.b.String(), "\n") }
