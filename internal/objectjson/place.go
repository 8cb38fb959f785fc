package objectjson

import (
	"bytes"
	"unicode/utf8"
)

// RevisionPlace finds in the JSON of an object without a resourceVersion where
// in its metadata `"resourceVersion":"…",` belongs, by the order of the names. It
// is false for whatever is not plainly right, where the names are not in order, and
// where nothing in the metadata comes after it; an object that was stored has a uid.
func RevisionPlace(data []byte) (at int, ok bool) {
	d := decoder{data: data}
	d.space()
	ok = d.members(0, func(name []byte, depth int) bool {
		if string(name) != "metadata" {
			return d.pass(depth)
		}
		if at != 0 || d.peek() != '{' {
			return false
		}
		before := d.at + 1
		var last []byte
		in := d.members(depth, func(name []byte, depth int) bool {
			switch {
			case string(name) == "resourceVersion" || last != nil && string(name) <= string(last) || bytes.IndexByte(name, '\\') >= 0:
				return false
			case at == 0 && string(name) > "resourceVersion":
				at = before
			}
			if last = name; !d.pass(depth) {
				return false
			}
			d.space()
			before = d.at + 1 // after the comma
			return true
		})
		return in
	})
	d.space()
	return at, ok && at != 0 && d.at == len(d.data)
}

// members passes over an object; value is to pass over the value of each name.
func (d *decoder) members(depth int, value func(name []byte, depth int) bool) bool {
	if depth > maxDepth || d.peek() != '{' {
		return false
	}
	d.at++
	d.space()
	if d.peek() == '}' {
		d.at++
		return true
	}
	for {
		begin := d.at
		if !d.passText() {
			return false
		}
		name := d.data[begin+1 : d.at-1]
		if !d.take(':') || !value(name, depth+1) {
			return false
		}
		if d.take(',') {
			continue
		}
		if d.peek() != '}' {
			return false
		}
		d.at++
		return true
	}
}

// pass passes over a value that Decode would take.
func (d *decoder) pass(depth int) bool {
	if depth > maxDepth {
		return false
	}
	switch c := d.peek(); c {
	case '{':
		return d.members(depth, func(_ []byte, depth int) bool { return d.pass(depth) })
	case '[':
		d.at++
		d.space()
		if d.peek() == ']' {
			d.at++
			return true
		}
		for {
			if !d.pass(depth + 1) {
				return false
			}
			if d.take(',') {
				continue
			}
			if d.peek() != ']' {
				return false
			}
			d.at++
			return true
		}
	case '"':
		return d.passText()
	default:
		_, ok := d.value(depth)
		return ok
	}
}

// passText passes over a string.
func (d *decoder) passText() bool {
	begin, ascii := d.at, true
	if d.peek() != '"' {
		return false
	}
	for d.at++; d.at < len(d.data); d.at++ {
		switch c := d.data[d.at]; {
		case c == '"':
			ok := ascii || utf8.Valid(d.data[begin+1:d.at])
			d.at++
			return ok
		case c == '\\':
			d.at = begin
			_, ok := d.text()
			return ok
		case c < ' ':
			return false
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return false
}
