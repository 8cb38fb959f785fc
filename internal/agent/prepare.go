package agent

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"

	"keelson.dev/keelson/internal/agent/join"
	"keelson.dev/keelson/internal/apiserver/peer"
	"keelson.dev/keelson/internal/network/dns"
	"keelson.dev/keelson/internal/version"
)

// nodeNetworkRole is the name of the ClusterRole by which agents read the objects that the
// service proxy, the name server, network policies and the pods' network need. It is that
// of networkUser, whom nodes impersonate by the ClusterRole nodeNetworkActor; the rights
// of a node itself stay those of the Node authorizer. On other clusters the accounts of
// kube-proxy (system:node-proxier), CoreDNS and a network add-on have these rights, by
// tokens that are on every node.
const (
	nodeNetworkRole  = "keelson:node-network"
	networkUser      = nodeNetworkRole
	nodeNetworkActor = "keelson:node-network-impersonator"
)

// PrepareJoin creates the objects that the agents of other machines need in the
// cluster: the roles of the nodes' network and storage, the StorageClass of local
// volumes, and the Service kube-dns. An existing Service stays as it is. admin has
// the rights of an administrator.
func PrepareJoin(ctx context.Context, admin kubernetes.Interface) error {
	info, err := admin.Discovery().ServerVersion()
	if err != nil {
		return fmt.Errorf("the API server's version: %w", err)
	}
	pods := "pods"
	if strings.HasSuffix(info.GitVersion, version.Build) { // others have no views
		pods += "/" + peer.View
	}
	read := []string{"list", "watch"}
	rules := []rbacv1.PolicyRule{
		{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: read},
		{APIGroups: []string{""}, Resources: []string{"services", "namespaces", "nodes", pods}, Verbs: read},
		{APIGroups: []string{"networking.k8s.io"}, Resources: []string{"networkpolicies"}, Verbs: read},
		{APIGroups: []string{"networking.k8s.io"}, Resources: []string{"servicecidrs"}, Verbs: []string{"get", "list", "watch"}},
		{APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{dns.ConfigMap}, Verbs: read},
	}
	if err := join.Role(ctx, admin, nodeNetworkRole, rules); err != nil {
		return err
	}
	if err := bindNetworkUser(ctx, admin); err != nil {
		return err
	}
	actor := []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"users"}, ResourceNames: []string{networkUser}, Verbs: []string{"impersonate"}}}
	if err := join.Role(ctx, admin, nodeNetworkActor, actor); err != nil {
		return err
	}
	if err := join.Bind(ctx, admin, nodeNetworkActor, nodeNetworkActor, user.NodesGroup); err != nil {
		return err
	}
	if err := prepareStorage(ctx, admin); err != nil {
		return err
	}
	cidrs, err := admin.NetworkingV1().ServiceCIDRs().Get(ctx, "kubernetes", metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("the range of the Services' addresses: %w", err)
	}
	if len(cidrs.Spec.CIDRs) == 0 {
		return fmt.Errorf("the ServiceCIDR %s has no range", cidrs.Name)
	}
	services, err := netip.ParsePrefix(cidrs.Spec.CIDRs[0])
	if err != nil {
		return fmt.Errorf("the ServiceCIDR %s: %w", cidrs.Name, err)
	}
	if _, err := admin.CoreV1().Services(metav1.NamespaceSystem).Create(ctx, dnsService(dnsAddress(services)), metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		// A Service of another name may have its address.
		if _, missing := admin.CoreV1().Services(metav1.NamespaceSystem).Get(ctx, "kube-dns", metav1.GetOptions{}); missing != nil {
			return fmt.Errorf("the Service kube-dns: %w", err)
		}
	}
	return nil
}

// bindNetworkUser gives nodeNetworkRole to networkUser, and takes it from the group of the
// nodes, which had it in earlier versions.
func bindNetworkUser(ctx context.Context, admin kubernetes.Interface) error {
	bindings := admin.RbacV1().ClusterRoleBindings()
	subjects := []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: networkUser}}
	b, err := bindings.Get(ctx, nodeNetworkRole, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		_, err = bindings.Create(ctx, &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: nodeNetworkRole}, Subjects: subjects,
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: nodeNetworkRole}}, metav1.CreateOptions{})
	case err == nil && !reflect.DeepEqual(b.Subjects, subjects):
		b = b.DeepCopy()
		b.Subjects = subjects
		_, err = bindings.Update(ctx, b, metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("the binding %s: %w", nodeNetworkRole, err)
	}
	return nil
}
