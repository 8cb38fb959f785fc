package main

import (
	"reflect"
	"slices"
	"testing"

	"github.com/spf13/cobra"
)

// TestGiven: keelson up hands every flag on to the server that it starts.
func TestGiven(t *testing.T) {
	args := []string{"--no-node=true", "--listen=127.0.0.1:0", "--authorization-mode=Node,RBAC", "--oidc-required-claim=a=b", "--audit-log-path=/tmp/x y", "--audit-webhook-batch-max-wait=2s",
		"--anonymous-auth=false", "--max-requests-inflight=7"}
	parse := func(args []string) (*serverFlags, []string) {
		t.Helper()
		f, c := &serverFlags{}, &cobra.Command{}
		f.add(c)
		if err := c.ParseFlags(args); err != nil {
			t.Fatal(err)
		}
		return f, given(c.Flags())
	}
	f, out := parse(args)
	again, _ := parse(out)
	if slices.Sort(args); !reflect.DeepEqual(out, args) {
		t.Errorf("handed on: %q, want %q", out, args)
	}
	if !reflect.DeepEqual(f, again) {
		t.Errorf("the server has %+v, want %+v", again, f)
	}
}
