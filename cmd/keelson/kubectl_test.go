package main

import (
	"slices"
	"testing"
)

func TestAsKubectl(t *testing.T) {
	for _, c := range []struct{ args, want []string }{
		{[]string{"/usr/bin/keelson", "kubectl", "get", "pods"}, []string{"kubectl", "get", "pods"}},
		{[]string{"/usr/bin/kubectl", "get", "pods"}, []string{"/usr/bin/kubectl", "get", "pods"}},
		{[]string{"keelson", "__complete", "kubectl", "get", ""}, []string{"kubectl", "__complete", "get", ""}},
		{[]string{"keelson", "__complete", "kube"}, nil},
		{[]string{"keelson", "up"}, nil},
		{[]string{"keelson"}, nil},
	} {
		got, ok := asKubectl(c.args)
		if ok != (c.want != nil) || !slices.Equal(got, c.want) {
			t.Errorf("%q: got %q, %v; want %q", c.args, got, ok, c.want)
		}
	}
}
