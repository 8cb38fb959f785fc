package component

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

func TestElectionValidate(t *testing.T) {
	for _, c := range []struct {
		e    Election
		want string
	}{
		{Election{}, ""},
		{Election{LeaseDuration: 10 * time.Second}, "--leader-elect-lease-duration"},
		{Election{RetryPeriod: 9 * time.Second}, "--leader-elect-retry-period"},
	} {
		err := c.e.Validate()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.e, err, c.want)
		}
	}
}

func TestComponentWithoutServer(t *testing.T) {
	for _, o := range []Options{{Kubeconfig: filepath.Join(t.TempDir(), "none")}, {Master: "https://127.0.0.1:1"}} {
		if err := o.Run(t.Context(), "test", func(Term, *rest.Config, kubernetes.Interface) error { return nil }); err == nil || !strings.Contains(err.Error(), "API server") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
