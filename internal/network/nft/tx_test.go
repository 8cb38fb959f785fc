package nft

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestHint(t *testing.T) {
	for _, c := range []struct {
		what string
		err  unix.Errno
		want string
	}{
		{"add table", unix.EOPNOTSUPP, "modprobe nf_tables"},
		{"add a rule to chain", unix.ENOENT, "nft_ct"},
		{"add chain", unix.ENOENT, "nft_chain_nat"},
		{"add an element to set", unix.EEXIST, ""},
		{"delete chain", unix.ENOENT, ""},
	} {
		if got := hint(step{c.what, "x"}, c.err); c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: %v: %q, want %q", c.what, c.err, got, c.want)
		}
	}
}
