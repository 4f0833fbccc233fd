package outbound

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
	// maxFields is how many fields of a location are told apart; what comes after
	// them counts as one more.
	maxFields = 64
	// maxFieldDepth is how deep objects are looked into; arrays are not.
	maxFieldDepth = 3
	// maxFieldName is the longest path that is told, in bytes; a longer one is cut.
	maxFieldName = 64
	// maxFieldsTold is how many changed fields are named.
	maxFieldsTold = 8

	more = "…"
)

// fields is what is remembered of a location to name, once it has changed, the
// fields that did. It is small: the names are the same for most devices and kept
// once, and of a value there is only a hash.
type fields struct {
	names unique.Handle[string] // paths, each with a line feed behind it
	sums  string                // four bytes of hash for each
}

// walks are used again: each has some buffers.
var walks = sync.Pool{New: func() any { return new(fieldWalk) }}

// fieldsOf reads the fields of a well-formed object.
func fieldsOf(raw []byte) fields {
	w := walks.Get().(*fieldWalk)
	defer walks.Put(w)
	w.names, w.sums, w.path, w.rest = w.names[:0], w.sums[:0], w.path[:0], 0
	w.object(raw, 1)
	if w.rest != 0 {
		w.names = append(append(w.names, more...), '\n')
		w.sums = binary.LittleEndian.AppendUint32(w.sums, w.rest)
	}
	return fields{names: unique.Make(string(w.names)), sums: string(w.sums)}
}

// fieldWalk goes through an object and the objects in it.
type fieldWalk struct {
	names, sums []byte
	path        []byte // of the object that is being read, with a dot behind it
	rest        uint32 // of the fields beyond the limit
}

func (w *fieldWalk) object(raw []byte, depth int) {
	_ = rawjson.Members(raw, func(key, value []byte) bool { // it was walked before
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
	sum := uint32(xxhash.Sum64(value))
	if len(w.sums) >= 4*maxFields {
		w.rest += sum | 1
		return
	}
	w.names = append(appendName(w.names, w.path), '\n')
	w.sums = binary.LittleEndian.AppendUint32(w.sums, sum)
}

// appendName appends a path, cut where it is long, and without what would end
// it.
func appendName(b, path []byte) []byte {
	start := len(b)
	cut := len(path) > maxFieldName
	if cut {
		path = path[:maxFieldName-len(more)]
		for len(path) > 0 && !utf8.Valid(path) { // what was cut in the middle of a character
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
		b = append(b, more...)
	}
	return b
}

// known reports whether there are any.
func (f fields) known() bool { return f.sums != "" }

// changed names the fields in which another location differs, those of the other
// one first, in its order, but for those that are ignored. It gives one name a
// line, and not too many.
func (f fields) changed(to fields, ignored []string) string {
	list := changedNames{ignored: ignored}
	if f.names == to.names {
		i := 0
		for name := range strings.Lines(to.names.Value()) {
			if f.sums[i:i+4] != to.sums[i:i+4] {
				list.add(name)
			}
			i += 4
		}
		return list.text()
	}
	before := f.byName()
	i := 0
	for name := range strings.Lines(to.names.Value()) {
		if sum, there := before[name]; !there || sum != to.sums[i:i+4] {
			list.add(name)
		}
		delete(before, name)
		i += 4
	}
	for name := range strings.Lines(f.names.Value()) {
		if _, gone := before[name]; gone {
			list.add(name)
		}
	}
	return list.text()
}

func (f fields) byName() map[string]string {
	m := make(map[string]string, len(f.sums)/4)
	i := 0
	for name := range strings.Lines(f.names.Value()) {
		m[name] = f.sums[i : i+4]
		i += 4
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
	if c.n > maxFieldsTold || slices.Contains(c.ignored, key) {
		return
	}
	if c.b.Len() == 0 {
		c.b.Grow(128)
	}
	if c.n++; c.n > maxFieldsTold {
		name = more + "\n"
	}
	c.b.WriteString(name)
}

func (c *changedNames) text() string { return strings.TrimSuffix(c.b.String(), "\n") }
