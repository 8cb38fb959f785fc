package admission

import (
	"slices"
	"strings"
	"testing"
)

func TestSelection(t *testing.T) {
	for _, c := range []struct {
		name string
		s    Selection
		want string // error
	}{
		{name: "none"},
		{name: "known", s: Selection{Enable: []string{"AlwaysPullImages"}, Disable: []string{"PodSecurity"}}},
		{name: "unknown to enable", s: Selection{Enable: []string{"Nope"}}, want: `enable-admission-plugins plugin "Nope" is unknown`},
		{name: "unknown to disable", s: Selection{Disable: []string{"Nope"}}, want: `disable-admission-plugins plugin "Nope" is unknown`},
		{name: "both", s: Selection{Enable: []string{"Priority"}, Disable: []string{"Priority"}}, want: "[Priority] in enable-admission-plugins and disable-admission-plugins overlapped"},
	} {
		got := ""
		if err := c.s.Validate(); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
	s := Selection{Enable: []string{"AlwaysPullImages"}, Disable: []string{"PodSecurity"}}
	var on []string
	for _, p := range table {
		if s.has(p) {
			on = append(on, p.name)
		}
	}
	if !slices.Contains(on, "AlwaysPullImages") || slices.Contains(on, "PodSecurity") || slices.Contains(on, "AlwaysDeny") || !slices.Contains(on, "ResourceQuota") {
		t.Errorf("on: %s", strings.Join(on, ", "))
	}
}
