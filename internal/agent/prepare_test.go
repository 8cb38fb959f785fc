package agent

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

// TestPrepareJoin checks the objects that PrepareJoin creates, and that a later call
// keeps people's changes of the Service kube-dns and the StorageClass.
func TestPrepareJoin(t *testing.T) {
	ctx := t.Context()
	admin := fake.NewClientset(&networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.96.0.0/16"}}})
	complain(t, PrepareJoin(ctx, admin), "")
	services := admin.CoreV1().Services(metav1.NamespaceSystem)
	s, err := services.Get(ctx, "kube-dns", metav1.GetOptions{})
	if err != nil || s.Spec.ClusterIP != "10.96.0.10" || s.Labels[dnsProxy] != dnsProxyName {
		t.Errorf("kube-dns: %+v, %v", s, err)
	}
	for name, subject := range map[string]string{nodeNetworkRole: networkUser, nodeNetworkActor: "system:nodes", nodeStorageRole: "system:nodes"} {
		b, err := admin.RbacV1().ClusterRoleBindings().Get(ctx, name, metav1.GetOptions{})
		if err != nil || b.RoleRef.Name != name || len(b.Subjects) != 1 || b.Subjects[0].Name != subject {
			t.Errorf("binding %s: %+v, %v", name, b, err)
		}
		if _, err := admin.RbacV1().ClusterRoles().Get(ctx, name, metav1.GetOptions{}); err != nil {
			t.Error(err)
		}
	}

	s.Spec = v1.ServiceSpec{ClusterIP: "10.96.0.53"}
	_, err = services.Update(ctx, s, metav1.UpdateOptions{})
	complain(t, err, "")
	classes := admin.StorageV1().StorageClasses()
	complain(t, classes.Delete(ctx, localClass, metav1.DeleteOptions{}), "")
	complain(t, PrepareJoin(ctx, admin), "")
	if s, err := services.Get(ctx, "kube-dns", metav1.GetOptions{}); err != nil || s.Spec.ClusterIP != "10.96.0.53" {
		t.Errorf("kube-dns after the second call: %+v, %v", s, err)
	}
	if _, err := classes.Get(ctx, localClass, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the StorageClass has come back: %v", err)
	}
}

func TestPrepareJoinWithoutRange(t *testing.T) {
	complain(t, PrepareJoin(t.Context(), fake.NewClientset()), "the range of the Services' addresses")
}
