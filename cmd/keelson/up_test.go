package main

import (
	"os/exec"
	"reflect"
	"slices"
	"testing"

	"github.com/spf13/cobra"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
)

// TestUpPassesFlags checks that keelson up hands every flag on to the server
// that it starts.
func TestUpPassesFlags(t *testing.T) {
	args := []string{"--no-node=true", "--listen=127.0.0.1:0", "--authorization-mode=Node,RBAC", "--oidc-required-claim=a=b", "--audit-log-path=/tmp/x y", "--audit-webhook-batch-max-wait=2s",
		"--anonymous-auth=false", "--max-requests-inflight=7", "--kube-reserved=cpu=200m,memory=1Gi", "--container-log-max-size=20Mi", "--eviction-hard=memory.available<1Gi",
		"--pod-cidr=10.9.0.0/24", "--min-request-timeout=0", "--etcd-compaction-interval=0s", "--service-node-port-range=40000-40010"}
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
	// Quantities keep the text that they were last printed as.
	if !apiequality.Semantic.DeepEqual(f.node.agent, again.node.agent) {
		t.Errorf("the server's node has %+v, want %+v", again.node.agent, f.node.agent)
	}
	again.node.agent, again.node.sets = f.node.agent, f.node.sets // sets of flags hold functions, which are never equal
	if !reflect.DeepEqual(f, again) {
		t.Errorf("the server has %+v, want %+v", again, f)
	}
}

func TestCommandNames(t *testing.T) {
	for _, c := range []struct {
		there            []string
		keelson, kubectl string
	}{
		{nil, "bin/keelson", "bin/keelson kubectl"},
		{[]string{"keelson"}, "keelson", "keelson kubectl"},
		{[]string{"kubectl"}, "bin/keelson", "kubectl"},
	} {
		keelson, kubectl := spoken("bin/keelson", func(name string) (string, error) {
			if slices.Contains(c.there, name) {
				return name, nil
			}
			return "", exec.ErrNotFound
		})
		if keelson != c.keelson || kubectl != c.kubectl {
			t.Errorf("with %v: %q and %q, want %q and %q", c.there, keelson, kubectl, c.keelson, c.kubectl)
		}
	}
}
