package agent

import (
	"testing"
)

func TestTaints(t *testing.T) {
	for _, c := range []struct{ in, out, want string }{
		{"a=b:NoSchedule", "a=b:NoSchedule", ""},
		{"a:NoExecute,b=c:PreferNoSchedule,", "a:NoExecute,b=c:PreferNoSchedule", ""},
		{"", "", ""},
		{"a=b", "", "give key=value:effect"},
		{"=b:NoSchedule", "", "give key=value:effect"},
		{"a=b:Never", "", "give key=value:effect"},
	} {
		var got taints
		complain(t, got.Set(c.in), c.want)
		if got.String() != c.out {
			t.Errorf("%q: got %q, want %q", c.in, got.String(), c.out)
		}
	}
}
