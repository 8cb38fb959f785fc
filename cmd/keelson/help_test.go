package main

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// TestHelpGroups checks that --help prints the flags by component, each in one
// group.
func TestHelpGroups(t *testing.T) {
	server := []string{"General", "API server", "Secure serving", "Authentication", "Service accounts", "Authorization", "Admission", "Priority and fairness", "Auditing", "History", "Etcd", "Encryption at rest",
		"Kubelet client", "Controllers", "Cluster autoscaler", "Node", "Eviction", "Image garbage collection", "Resource managers", "Network", "Logging"}
	heading, flag := regexp.MustCompile(`^(\S.*) flags:$`), regexp.MustCompile(`^ +(?:-\w, )?--([\w-]+)`)
	for name, want := range map[string][]string{
		"server":      server,
		"up":          server,
		"controllers": {"Controllers", "API client", "Leader election", "Logging", "General"},
		"scheduler":   {"API client", "Leader election", "Logging", "General"},
	} {
		var out bytes.Buffer
		r := root()
		r.SetOut(&out)
		r.SetArgs([]string{name, "--help"})
		if err := r.Execute(); err != nil {
			t.Fatal(err)
		}
		c, _, err := r.Find([]string{name})
		if err != nil {
			t.Fatal(err)
		}
		if first, _, _ := strings.Cut(out.String(), "\n"); first != c.Short {
			t.Errorf("%s: the first line is %q, want %q", name, first, c.Short)
		}
		var groups []string
		in := map[string][]string{}
		for line := range strings.Lines(out.String()) {
			if m := heading.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
				groups = append(groups, m[1])
			} else if m := flag.FindStringSubmatch(line); m != nil {
				in[m[1]] = append(in[m[1]], groups[len(groups)-1])
			}
		}
		if !slices.Equal(groups, want) {
			t.Errorf("%s has the groups %q, want %q", name, groups, want)
		}
		c.Flags().VisitAll(func(fl *pflag.Flag) {
			if got := in[fl.Name]; fl.Hidden != (len(got) == 0) || len(got) > 1 {
				t.Errorf("%s: --%s is in the groups %q", name, fl.Name, got)
			}
			delete(in, fl.Name)
		})
		if len(in) > 0 {
			t.Errorf("%s has no flags %v", name, in)
		}
	}
}
