package join

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"strconv"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/cluster-bootstrap/token/api"
)

// Names of the objects by which kubeadm lets nodes join.
const (
	clusterInfoRole = "kubeadm:bootstrap-signer-clusterinfo"
	getNodesRole    = "kubeadm:get-nodes"
)

// Prepare creates the objects that machines need to join by a token: the ConfigMap
// kube-public/cluster-info with the URL and the authority of the API server, which
// anonymous users may read, and the rights of tokens and of nodes to request
// certificates. Existing objects stay, except for the URL and the authority.
func Prepare(ctx context.Context, admin kubernetes.Interface, server string, ca []byte) error {
	info := clientcmdapi.NewConfig()
	info.Clusters[""] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: ca}
	text, err := clientcmd.Write(*info)
	if err != nil {
		return err
	}
	if err := clusterInfo(ctx, admin, string(text)); err != nil {
		return fmt.Errorf("the ConfigMap %s/%s: %w", metav1.NamespacePublic, api.ConfigMapClusterInfo, err)
	}
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespacePublic, Name: clusterInfoRole}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{api.ConfigMapClusterInfo}, Verbs: []string{"get"}}}}
	if _, err := admin.RbacV1().Roles(role.Namespace).Create(ctx, role, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("the role %s: %w", role.Name, err)
	}
	everybody := &rbacv1.RoleBinding{ObjectMeta: role.ObjectMeta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role.Name},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user.Anonymous}}}
	if _, err := admin.RbacV1().RoleBindings(role.Namespace).Create(ctx, everybody, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("the binding %s: %w", role.Name, err)
	}
	nodes := []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: []string{"get"}}}
	if err := Role(ctx, admin, getNodesRole, nodes); err != nil {
		return err
	}
	for _, b := range []struct{ name, role, group string }{
		{getNodesRole, getNodesRole, DefaultGroup},
		{"kubeadm:kubelet-bootstrap", "system:node-bootstrapper", DefaultGroup},
		{"kubeadm:node-autoapprove-bootstrap", "system:certificates.k8s.io:certificatesigningrequests:nodeclient", DefaultGroup},
		{"kubeadm:node-autoapprove-certificate-rotation", "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", user.NodesGroup},
	} {
		if err := Bind(ctx, admin, b.name, b.role, b.group); err != nil {
			return err
		}
	}
	return nil
}

// clusterInfo writes the ConfigMap, and keeps the signatures in it.
func clusterInfo(ctx context.Context, admin kubernetes.Interface, kubeconfig string) error {
	maps := admin.CoreV1().ConfigMaps(metav1.NamespacePublic)
	old, err := maps.Get(ctx, api.ConfigMapClusterInfo, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = maps.Create(ctx, &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: api.ConfigMapClusterInfo}, Data: map[string]string{api.KubeConfigKey: kubeconfig}}, metav1.CreateOptions{})
		return err
	}
	if err != nil || old.Data[api.KubeConfigKey] == kubeconfig {
		return err
	}
	next := old.DeepCopy()
	if next.Data == nil {
		next.Data = map[string]string{}
	}
	next.Data[api.KubeConfigKey] = kubeconfig
	_, err = maps.Update(ctx, next, metav1.UpdateOptions{})
	return err
}

// Role creates a ClusterRole with these rules, or sets the rules of an existing
// one.
func Role(ctx context.Context, admin kubernetes.Interface, name string, rules []rbacv1.PolicyRule) error {
	roles := admin.RbacV1().ClusterRoles()
	_, err := roles.Create(ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		var old *rbacv1.ClusterRole
		if old, err = roles.Get(ctx, name, metav1.GetOptions{}); err == nil && !reflect.DeepEqual(old.Rules, rules) {
			old = old.DeepCopy()
			old.Rules = rules
			_, err = roles.Update(ctx, old, metav1.UpdateOptions{})
		}
	}
	if err != nil {
		return fmt.Errorf("the role %s: %w", name, err)
	}
	return nil
}

// Bind binds a ClusterRole to a group, unless there is a binding of that name.
func Bind(ctx context.Context, admin kubernetes.Interface, name, role, group string) error {
	b := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: group}}}
	if _, err := admin.RbacV1().ClusterRoleBindings().Create(ctx, b, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("the binding %s: %w", name, err)
	}
	return nil
}

// Server returns the URL by which other machines reach the API server: that of
// the endpoints of the Service kubernetes.
func Server(ctx context.Context, admin kubernetes.Interface) (string, error) {
	slices, err := admin.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault).List(ctx, metav1.ListOptions{LabelSelector: discovery.LabelServiceName + "=kubernetes"})
	if err != nil {
		return "", fmt.Errorf("the API server's address: %w", err)
	}
	for i := range slices.Items {
		s := &slices.Items[i]
		for _, e := range s.Endpoints {
			for _, a := range e.Addresses {
				ip, err := netip.ParseAddr(a)
				if err != nil || len(s.Ports) == 0 || s.Ports[0].Port == nil {
					continue
				}
				if ip.IsLoopback() {
					return "", fmt.Errorf("the API server has the address %s, which other machines do not reach: start it with --advertise-address, or give --server", ip)
				}
				u := url.URL{Scheme: "https", Host: net.JoinHostPort(a, strconv.Itoa(int(*s.Ports[0].Port)))}
				return u.String(), nil
			}
		}
	}
	return "", fmt.Errorf("the Service kubernetes has no endpoints: give the URL of the API server with --server")
}
