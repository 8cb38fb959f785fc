package cloud

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"keelson.dev/keelson/test/harness"
)

// managerArguments, in the environment, has this program be a cloud controller manager
// with these arguments, one a line.
const managerArguments = "KEELSON_TEST_CLOUD_CONTROLLER_MANAGER"

func TestMain(m *testing.M) {
	if args := os.Getenv(managerArguments); args != "" {
		if err := controllerManager(strings.Split(args, "\n")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	harness.OwnNetwork()
	os.Exit(m.Run())
}

// account makes the account of the controller manager, with the rights that upstream's
// documentation gives it, and returns a kubeconfig of it.
func account(t *testing.T, cfg *rest.Config) string {
	t.Helper()
	client := kubernetes.NewForConfigOrDie(cfg)
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	const name = "cloud-controller-manager"
	rule := func(groups, resources, verbs string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{APIGroups: strings.Split(groups, ","), Resources: strings.Split(resources, ","), Verbs: strings.Split(verbs, ",")}
	}
	accounts := client.CoreV1().ServiceAccounts(metav1.NamespaceSystem)
	_, err := accounts.Create(ctx, &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	must(err)
	_, err = client.RbacV1().ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "system:" + name}, Rules: []rbacv1.PolicyRule{
		rule(",events.k8s.io", "events", "create,patch,update"),
		rule("", "nodes", "*"),
		rule("", "nodes/status", "patch"),
		rule("", "services", "list,patch,update,watch"),
		rule("", "services/status", "patch"),
		rule("", "serviceaccounts", "create,get"),
		rule("", "serviceaccounts/token", "create"),
		rule("coordination.k8s.io", "leases", "get,create,update"),
	}}, metav1.CreateOptions{})
	must(err)
	subjects := []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: metav1.NamespaceSystem, Name: name}}
	_, err = client.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "system:" + name}, Subjects: subjects,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "system:" + name}}, metav1.CreateOptions{})
	must(err)
	_, err = client.RbacV1().RoleBindings(metav1.NamespaceSystem).Create(ctx, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, Subjects: subjects,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "extension-apiserver-authentication-reader"}}, metav1.CreateOptions{})
	must(err)
	token, err := accounts.CreateToken(ctx, name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	must(err)
	file := filepath.Join(t.TempDir(), "kubeconfig")
	must(harness.WriteKubeconfig(file, harness.WithToken(cfg, token.Status.Token)))
	return file
}

// manage runs a cloud controller manager until the end of the test.
func manage(t *testing.T, c *Cloud, cfg *rest.Config, podRange string) {
	t.Helper()
	dir, kubeconfig := t.TempDir(), account(t, cfg)
	settings := filepath.Join(dir, "cloud.conf")
	if err := os.WriteFile(settings, []byte(c.socket), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), managerArguments+"="+strings.Join([]string{
		"--cloud-provider=" + providerName, "--cloud-config=" + settings, "--kubeconfig=" + kubeconfig,
		"--authentication-kubeconfig=" + kubeconfig, "--authorization-kubeconfig=" + kubeconfig, "--use-service-account-credentials",
		"--cluster-cidr=" + podRange, "--configure-cloud-routes",
		"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", harness.FreePort(t)), "--cert-dir=" + dir,
		"--node-monitor-period=1s", "--node-status-update-frequency=1s", "--route-reconciliation-period=1s",
	}, "\n"))
	harness.Run(t, cmd)
}
