package convert

import "testing"

func TestExpand(t *testing.T) {
	values := map[string]string{"A": "1", "B": "$(A)"}
	for in, want := range map[string]string{
		"plain": "plain", "$(A)": "1", "x$(A)y$(B)": "x1y$(A)", "$$(A)": "$(A)", "$(NONE)": "$(NONE)", "$(A": "$(A", "$": "$", "a$b": "a$b", "$$$(A)": "$1",
	} {
		if got := expand(in, values); got != want {
			t.Errorf("%q gives %q, want %q", in, got, want)
		}
	}
}

func TestExpandPath(t *testing.T) {
	values := map[string]string{"A": "1", "EMPTY": ""}
	for in, want := range map[string]string{"x/$(A)": "x/1", "$$(A)": "$(A)"} {
		if got, err := expandPath(in, values); err != nil || got != want {
			t.Errorf("%q gives %q (%v), want %q", in, got, err, want)
		}
	}
	// Without a value the path would be that of the whole volume.
	for in, want := range map[string]string{"$(EMPTY)": "missing value for EMPTY", "$(A)/$(NONE)/$(EMPTY)": "missing value for EMPTY, NONE"} {
		if got, err := expandPath(in, values); err == nil || err.Error() != want {
			t.Errorf("%q gives %q (%v), want %q", in, got, err, want)
		}
	}
}
