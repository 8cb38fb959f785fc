package network_test

import (
	"context"
	"fmt"
	"os/exec"
	"strings"

	"keelson.dev/keelson/test/harness"
)

// denied is what ufw has by default: nothing but answers comes in, and nothing is
// forwarded. Docker has the latter.
const denied = `table ip filter
delete table ip filter
table ip filter {
	chain INPUT { type filter hook input priority 0; policy drop; iifname "lo" accept; ct state established,related accept; }
	chain FORWARD { type filter hook forward priority 0; policy drop; ct state established,related accept; }
}
`

// firewalled has pods reach one another, names and the API server through a firewall
// that denies all that comes in, also after that was written anew.
func (e *env) firewalled() {
	nft := func(script string) {
		e.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, "nft", "-f", "-")
		cmd.Stdin = strings.NewReader(script)
		if out, err := cmd.CombinedOutput(); err != nil {
			e.Fatalf("nft: %v: %s", err, out)
		}
	}
	pods := e.start("web", "a", "b")
	e.expose("web", "web")
	e.Cleanup(func() { nft("table ip filter\ndelete table ip filter\n") })
	for _, when := range []string{"at first", "after it was written anew"} {
		nft(denied)
		e.reaches("pods by a name "+when, func() (string, error) { return e.exec("a", "get", "http://web/") }, "a", "b")
		e.reaches("a pod by its address "+when, func() (string, error) { return e.exec("a", "get", "http://"+pods[1].Status.PodIP+"/") }, "b")
		harness.Succeeds(e, "the API server from a pod "+when, func() error {
			out, err := e.exec("a", "get", "http://kubernetes.default:443/")
			if err == nil && !strings.Contains(out, "HTTPS") {
				err = fmt.Errorf("%q", out)
			}
			return err
		})
		// What else the machine has stays closed to pods.
		if out, err := e.exec("a", "send", pods[0].Status.HostIP+":10"); err == nil || !strings.Contains(err.Error(), "i/o timeout") {
			e.Errorf("another port of the machine: %q, %v", out, err)
		}
	}
}
