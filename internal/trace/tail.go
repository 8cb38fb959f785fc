package trace

// Next returns the number that the next step will have.
func (r *Recorder) Next() uint64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.first + uint64(len(r.steps))
}

// From appends the steps from the one with a number on to out, of many the last most. It
// returns them, the number of the next one, and how many there are not: left out, or
// forgotten.
func (r *Recorder) From(number uint64, most int, out []Step) (steps []Step, next uint64, missing int) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	next = r.first + uint64(len(r.steps))
	if number >= next {
		return out, next, 0
	}
	begin := max(number, r.first, next-min(next, uint64(most)))
	for _, s := range r.steps[begin-r.first:] {
		out = append(out, *s)
	}
	return out, next, int(begin - number)
}
