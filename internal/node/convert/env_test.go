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
