package objectjson

import (
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth is how deep the objects are that Decode takes.
const maxDepth = 64

// Decode reads one JSON object: whole numbers become int64, where they fit, and
// others float64. It is false for whatever is not plainly right: an error, a
// name that comes twice in an object, bytes after the end. The strings of the
// result may be shared with other results.
func Decode(data []byte) (map[string]any, bool) {
	d := decoder{data: data}
	d.space()
	if d.peek() != '{' {
		return nil, false
	}
	v, ok := d.object(0)
	if !ok {
		return nil, false
	}
	d.space()
	return v, d.at == len(d.data)
}

type decoder struct {
	data []byte
	at   int
}

func (d *decoder) space() {
	for d.at < len(d.data) {
		switch d.data[d.at] {
		case ' ', '\t', '\n', '\r':
			d.at++
		default:
			return
		}
	}
}

// peek returns the next byte, 0 at the end.
func (d *decoder) peek() byte {
	if d.at < len(d.data) {
		return d.data[d.at]
	}
	return 0
}

// take passes over c, and the space around it.
func (d *decoder) take(c byte) bool {
	d.space()
	if d.peek() != c {
		return false
	}
	d.at++
	d.space()
	return true
}

func (d *decoder) word(w string) bool {
	if len(d.data)-d.at < len(w) || string(d.data[d.at:d.at+len(w)]) != w {
		return false
	}
	d.at += len(w)
	return true
}

func (d *decoder) value(depth int) (any, bool) {
	if depth > maxDepth {
		return nil, false
	}
	switch c := d.peek(); {
	case c == '{':
		return d.object(depth)
	case c == '[':
		return d.array(depth)
	case c == '"':
		return d.text()
	case c == 't':
		return true, d.word("true")
	case c == 'f':
		return false, d.word("false")
	case c == 'n':
		return nil, d.word("null")
	case c == '-' || c >= '0' && c <= '9':
		return d.number()
	}
	return nil, false
}

func (d *decoder) object(depth int) (map[string]any, bool) {
	d.at++ // {
	d.space()
	if d.peek() == '}' {
		d.at++
		return map[string]any{}, true
	}
	m := map[string]any{}
	for {
		name, ok := d.text()
		if !ok || !d.take(':') {
			return nil, false
		}
		v, ok := d.value(depth + 1)
		if !ok {
			return nil, false
		}
		before := len(m)
		if m[name] = v; len(m) == before {
			return nil, false
		}
		if d.take(',') {
			continue
		}
		if d.peek() != '}' {
			return nil, false
		}
		d.at++
		return m, true
	}
}

func (d *decoder) array(depth int) ([]any, bool) {
	d.at++ // [
	d.space()
	if d.peek() == ']' {
		d.at++
		return []any{}, true
	}
	var l []any
	for {
		v, ok := d.value(depth + 1)
		if !ok {
			return nil, false
		}
		l = append(l, v)
		if d.take(',') {
			continue
		}
		if d.peek() != ']' {
			return nil, false
		}
		d.at++
		return l, true
	}
}

func (d *decoder) number() (any, bool) {
	begin := d.at
	digits := func() bool {
		from := d.at
		for c := d.peek(); c >= '0' && c <= '9'; c = d.peek() {
			d.at++
		}
		return d.at > from
	}
	if d.peek() == '-' {
		d.at++
	}
	first := d.at
	if !digits() || d.data[first] == '0' && d.at > first+1 {
		return nil, false
	}
	whole := true
	if d.peek() == '.' {
		whole = false
		if d.at++; !digits() {
			return nil, false
		}
	}
	if c := d.peek(); c == 'e' || c == 'E' {
		whole = false
		d.at++
		if c := d.peek(); c == '+' || c == '-' {
			d.at++
		}
		if !digits() {
			return nil, false
		}
	}
	s := string(d.data[begin:d.at])
	if whole {
		// The library's results for numbers beyond 64 bits and for a negative zero
		// differ.
		n, err := strconv.ParseInt(s, 10, 64)
		return n, err == nil && (n != 0 || s == "0")
	}
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil
}

// text reads a string.
func (d *decoder) text() (string, bool) {
	if d.peek() != '"' {
		return "", false
	}
	d.at++
	begin, ascii := d.at, true
	for d.at < len(d.data) {
		switch c := d.data[d.at]; {
		case c == '"':
			b := d.data[begin:d.at]
			d.at++
			if !ascii && !utf8.Valid(b) {
				return "", false
			}
			return intern(b), true
		case c == '\\':
			return d.escaped(begin)
		case c < ' ':
			return "", false
		case c >= utf8.RuneSelf:
			ascii = false
		}
		d.at++
	}
	return "", false
}

// escaped reads the rest of a string that begins at begin, from the first
// escape on.
func (d *decoder) escaped(begin int) (string, bool) {
	b := append(make([]byte, 0, 2*(d.at-begin)+16), d.data[begin:d.at]...)
	for d.at < len(d.data) {
		c := d.data[d.at]
		d.at++
		switch {
		case c == '"':
			return string(b), utf8.Valid(b)
		case c < ' ':
			return "", false
		case c != '\\':
			b = append(b, c)
			continue
		}
		c = d.peek()
		d.at++
		switch c {
		case '"', '\\', '/':
			b = append(b, c)
		case 'b':
			b = append(b, '\b')
		case 'f':
			b = append(b, '\f')
		case 'n':
			b = append(b, '\n')
		case 'r':
			b = append(b, '\r')
		case 't':
			b = append(b, '\t')
		case 'u':
			if len(d.data)-d.at < 4 {
				return "", false
			}
			n, err := strconv.ParseUint(string(d.data[d.at:d.at+4]), 16, 16)
			if err != nil || utf16.IsSurrogate(rune(n)) {
				return "", false
			}
			d.at += 4
			b = utf8.AppendRune(b, rune(n))
		default:
			return "", false
		}
	}
	return "", false
}
