package inprocess

import "k8s.io/apiserver/pkg/authentication/user"

// The users that parts of this process act as. Admin may do everything, as may
// APIServer, the API server as its own client. SimulatedNodes acts for all simulated
// nodes, so it is none of them.
var (
	Admin             = &user.DefaultInfo{Name: "kubernetes-admin", Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated}}
	APIServer         = &user.DefaultInfo{Name: user.APIServerUser, Groups: []string{user.SystemPrivilegedGroup}}
	ControllerManager = &user.DefaultInfo{Name: user.KubeControllerManager, Groups: []string{user.AllAuthenticated}}
	Scheduler         = &user.DefaultInfo{Name: user.KubeScheduler, Groups: []string{user.AllAuthenticated}}
	SimulatedNodes    = &user.DefaultInfo{Name: "system:simulated-nodes", Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated}}
)

// Controller returns the user that a controller acts as, given the name of its account.
func Controller(name string) user.Info {
	if name == "tokens-controller" {
		return ControllerManager // service accounts' tokens cannot depend on one
	}
	return &user.DefaultInfo{Name: "system:serviceaccount:kube-system:" + name,
		Groups: []string{"system:serviceaccounts", "system:serviceaccounts:kube-system", user.AllAuthenticated}}
}
