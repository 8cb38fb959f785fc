package inprocess

import (
	"runtime"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/authentication/user"
)

func TestUserAgent(t *testing.T) {
	for _, c := range []struct {
		u            user.Info
		first, after string
	}{
		{Controller("deployment-controller"), "kube-controller-manager", "/system:serviceaccount:kube-system:deployment-controller"},
		{ControllerManager, "kube-controller-manager", ""},
		{Scheduler, "kube-scheduler", ""},
		{SimulatedNodes, "kubelet", ""},
		{&user.DefaultInfo{Name: "system:node:n"}, "kubelet", ""},
		{APIServer, "kube-apiserver", ""},
	} {
		got := UserAgent(c.u)
		if !strings.HasPrefix(got, c.first+"/v1.37.2 ("+runtime.GOOS+"/"+runtime.GOARCH+") kubernetes/") || !strings.HasSuffix(got, c.after) {
			t.Errorf("%s is %q, want %s…%s", c.u.GetName(), got, c.first, c.after)
		}
	}
	if got := UserAgent(Admin); got != Admin.Name {
		t.Errorf("an administrator is %q", got)
	}
}
