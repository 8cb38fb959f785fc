package objectjson

// Labels reads metadata.labels of the JSON of an object, and as little as it can of the
// rest. It trusts that the names of the metadata are in order, as RevisionPlace has found
// them to be and Marshal writes them. It is false for whatever is not plainly right.
func Labels(data []byte) (labels map[string]string, ok bool) {
	d := decoder{data: data}
	d.space()
	done := false // what is found ends the search, as what is wrong does
	d.members(0, func(name []byte, depth int) bool {
		if string(name) != "metadata" {
			return d.pass(depth)
		}
		done = d.members(depth, func(name []byte, depth int) bool {
			switch {
			case string(name) == "labels":
				labels, ok = d.texts()
				return false
			case string(name) > "labels":
				ok = true
				return false
			}
			return d.pass(depth)
		})
		return false
	})
	return labels, ok || done
}

// texts reads an object whose values are strings.
func (d *decoder) texts() (map[string]string, bool) {
	if d.peek() != '{' {
		return nil, false
	}
	d.at++
	d.space()
	m := map[string]string{}
	if d.peek() == '}' {
		return m, true
	}
	for {
		name, ok := d.text()
		if !ok || !d.take(':') {
			return nil, false
		}
		value, ok := d.text()
		if !ok {
			return nil, false
		}
		before := len(m)
		if m[name] = value; len(m) == before {
			return nil, false
		}
		if !d.take(',') {
			return m, d.peek() == '}'
		}
	}
}
