package cluster

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	apps "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/apiserver/controlplane"
	"keelson.dev/keelson/internal/store/etcd"
	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/test/harness/etcdtest"
)

// pair starts two servers on one etcd, with the same certificates.
func pair(t *testing.T, change ...func(*Options)) (*etcdtest.Server, [2]*Cluster, [2]kubernetes.Interface) {
	t.Helper()
	server := etcdtest.Start(t)
	var servers [2]*Cluster
	var clients [2]kubernetes.Interface
	pki := ""
	for i := range servers {
		dir := t.TempDir()
		if pki != "" {
			if err := os.CopyFS(filepath.Join(dir, "pki"), os.DirFS(pki)); err != nil {
				t.Fatal(err)
			}
		}
		pki = filepath.Join(dir, "pki")
		o := Options{Options: controlplane.Options{DataDir: dir, Listen: "127.0.0.1:0", NoDrain: true, Advertise: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), Etcd: &etcd.Options{Servers: []string{server.URL}}}}
		if i == 0 {
			o.SimNodes = 2
		}
		for _, f := range change {
			f(&o)
		}
		servers[i] = boot(t, o)
		cfg, err := servers[i].RESTConfig()
		if err != nil {
			t.Fatal(err)
		}
		cfg.QPS = -1
		clients[i] = kubernetes.NewForConfigOrDie(cfg)
	}
	return server, servers, clients
}

func holder(t *testing.T, client kubernetes.Interface, name string) string {
	t.Helper()
	l, err := client.CoordinationV1().Leases(metav1.NamespaceSystem).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return ""
	}
	return ptr.Deref(l.Spec.HolderIdentity, "")
}

// TestTwoServers checks that two servers on one etcd are one cluster.
func TestTwoServers(t *testing.T) {
	_, servers, clients := pair(t)
	ctx := t.Context()

	t.Run("Answers", func(t *testing.T) {
		for _, path := range []string{"/api/v1/namespaces", "/apis/rbac.authorization.k8s.io/v1/clusterroles", "/api/v1/nodes", "/apis"} {
			// The servers' own work writes on; the answers at one revision are the same.
			var bodies [2]string
			var version string
			for i, c := range clients {
				req := c.CoreV1().RESTClient().Get().AbsPath(path)
				if version != "" {
					req = req.Param("resourceVersion", version).Param("resourceVersionMatch", "Exact")
				}
				raw, err := req.DoRaw(ctx)
				if err != nil {
					t.Fatal(err)
				}
				bodies[i] = string(raw)
				if _, rest, ok := strings.Cut(bodies[i], `"metadata":{"resourceVersion":"`); ok && version == "" {
					version, _, _ = strings.Cut(rest, `"`)
				}
			}
			if bodies[0] != bodies[1] {
				t.Errorf("%s differs:\n%s\n%s", path, bodies[0], bodies[1])
			}
		}
	})

	t.Run("Watch", func(t *testing.T) {
		w, err := clients[1].CoreV1().ConfigMaps("default").Watch(ctx, metav1.ListOptions{LabelSelector: "test=watch"})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Stop()
		cm := &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "seen", Labels: map[string]string{"test": "watch"}}, Data: map[string]string{"n": ""}}
		if cm, err = clients[0].CoreV1().ConfigMaps("default").Create(ctx, cm, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		for i := range 20 {
			cm.Data["n"] = strconv.Itoa(i)
			if cm, err = clients[0].CoreV1().ConfigMaps("default").Update(ctx, cm, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			// What one server has acknowledged, the other one reads.
			got, err := clients[1].CoreV1().ConfigMaps("default").Get(ctx, cm.Name, metav1.GetOptions{})
			if err != nil || got.ResourceVersion != cm.ResourceVersion {
				t.Fatalf("read %+v (%v), want resourceVersion %s", got, err, cm.ResourceVersion)
			}
		}
		if err := clients[1].CoreV1().ConfigMaps("default").Delete(ctx, cm.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		for i := -1; i <= 20; i++ {
			ev, ok := <-w.ResultChan()
			if !ok {
				t.Fatal("the watch ended")
			}
			want, n := "MODIFIED", strconv.Itoa(i)
			switch i {
			case -1:
				want, n = "ADDED", ""
			case 20:
				want, n = "DELETED", "19"
			}
			if got := ev.Object.(*v1.ConfigMap); string(ev.Type) != want || got.Data["n"] != n {
				t.Errorf("event %d: %s %v", i, ev.Type, got.Data)
			}
		}
	})

	t.Run("Conflicts", func(t *testing.T) {
		if _, err := clients[0].CoreV1().ConfigMaps("default").Create(ctx, &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "counter"}, Data: map[string]string{"n": "0"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := clients[1].CoreV1().ConfigMaps("default").Create(ctx, &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "counter"}}, metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
			t.Errorf("a second creation: %v", err)
		}
		var wg sync.WaitGroup
		const each = 25
		for i := range 4 {
			maps := clients[i%2].CoreV1().ConfigMaps("default")
			wg.Go(func() {
				for range each {
					err := retry.OnError(wait.Backoff{Steps: 1000}, apierrors.IsConflict, func() error {
						cm, err := maps.Get(ctx, "counter", metav1.GetOptions{})
						if err != nil {
							return err
						}
						n, _ := strconv.Atoi(cm.Data["n"])
						cm.Data["n"] = strconv.Itoa(n + 1)
						_, err = maps.Update(ctx, cm, metav1.UpdateOptions{})
						return err
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		cm, err := clients[1].CoreV1().ConfigMaps("default").Get(ctx, "counter", metav1.GetOptions{})
		if err != nil || cm.Data["n"] != strconv.Itoa(4*each) {
			t.Errorf("counted to %v (%v), want %d", cm.Data, err, 4*each)
		}
	})

	t.Run("Tokens", func(t *testing.T) {
		harness.Eventually(t, "the default account", func() bool {
			_, err := clients[1].CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
			return err == nil
		})
		for i := range clients {
			servesOther(t, servers[1-i], clients[i])
		}
	})

	t.Run("Services", func(t *testing.T) {
		// Each address and each port is given out once.
		seen := map[string]string{}
		ports := map[int32]string{}
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				svc, err := clients[i%2].CoreV1().Services("default").Create(ctx, &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("s", i)},
					Spec: v1.ServiceSpec{Type: v1.ServiceTypeNodePort, Ports: []v1.ServicePort{{Port: 80}}}}, metav1.CreateOptions{})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				if other := seen[svc.Spec.ClusterIP]; other != "" {
					t.Errorf("%s and %s both have %s", svc.Name, other, svc.Spec.ClusterIP)
				}
				if other := ports[svc.Spec.Ports[0].NodePort]; other != "" {
					t.Errorf("%s and %s both have port %d", svc.Name, other, svc.Spec.Ports[0].NodePort)
				}
				seen[svc.Spec.ClusterIP], ports[svc.Spec.Ports[0].NodePort] = svc.Name, svc.Name
			})
		}
		wg.Wait()
		// An address that one server gave out is refused by the other.
		svc, err := clients[0].CoreV1().Services("default").Get(ctx, "s0", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = clients[1].CoreV1().Services("default").Create(ctx, &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: "thief"},
			Spec: v1.ServiceSpec{ClusterIP: svc.Spec.ClusterIP, Ports: []v1.ServicePort{{Port: 80}}}}, metav1.CreateOptions{})
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "provided IP is already allocated") {
			t.Errorf("an address that is taken: %v", err)
		}
	})

	t.Run("Endpoints", func(t *testing.T) {
		eps, err := clients[0].CoreV1().Endpoints("default").Get(ctx, "kubernetes", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var ips []string
		for _, a := range eps.Subsets[0].Addresses {
			ips = append(ips, a.IP)
		}
		if !slices.Equal(ips, []string{"192.0.2.1", "192.0.2.2"}) {
			t.Errorf("endpoints of the kubernetes Service: %v", ips)
		}
	})

	t.Run("Leaders", func(t *testing.T) {
		for _, name := range []string{"kube-controller-manager", "kube-scheduler"} {
			harness.Eventually(t, name+" has a leader", func() bool { return holder(t, clients[1], name) != "" })
		}
		_, err := clients[1].AppsV1().Deployments("default").Create(ctx, deployment("web", 3), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		harness.Eventually(t, "the deployment runs", func() bool {
			d, err := clients[0].AppsV1().Deployments("default").Get(ctx, "web", metav1.GetOptions{})
			return err == nil && d.Status.ReadyReplicas == 3
		})
		pods, err := clients[1].CoreV1().Pods("default").List(ctx, metav1.ListOptions{})
		if err != nil || len(pods.Items) != 3 {
			t.Errorf("%d pods (%v), want 3: two controllers at work?", len(pods.Items), err)
		}
	})
}

func deployment(name string, replicas int32) *apps.Deployment {
	labels := map[string]string{"app": name}
	return &apps.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: apps.DeploymentSpec{Replicas: ptr.To(replicas), Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "i"}}}}}}
}

// servesOther reports whether c accepts a token that client's server issued.
func servesOther(t *testing.T, c *Cluster, client kubernetes.Interface) {
	t.Helper()
	token, err := client.CoreV1().ServiceAccounts("default").CreateToken(t.Context(), "default", tokenRequest(), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := c.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	cfg.CertData, cfg.KeyData, cfg.BearerToken = nil, nil, token.Status.Token
	if _, err := kubernetes.NewForConfigOrDie(cfg).CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("the other server's token: %v, want forbidden: known, but with no rights", err)
	}
}

// TestLeaderStops checks that when the server that leads ends, the other takes
// over, and the first one's address is no endpoint any more.
func TestLeaderStops(t *testing.T) {
	_, servers, clients := pair(t)
	ctx := t.Context()
	before := map[string]string{}
	for _, name := range []string{"kube-controller-manager", "kube-scheduler"} {
		harness.Eventually(t, name+" has a leader", func() bool { before[name] = holder(t, clients[1], name); return before[name] != "" })
	}
	if err := servers[0].Stop(); err != nil {
		t.Fatal(err)
	}
	for name, old := range before {
		harness.Eventually(t, name+" has a new leader", func() bool { h := holder(t, clients[1], name); return h != "" && h != old })
	}
	if _, err := clients[1].AppsV1().Deployments("default").Create(ctx, deployment("web", 2), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, "pods are made and placed", func() bool {
		pods, err := clients[1].CoreV1().Pods("default").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName!="})
		return err == nil && len(pods.Items) == 2
	})
	eps, err := clients[1].CoreV1().Endpoints("default").Get(ctx, "kubernetes", metav1.GetOptions{})
	if err != nil || len(eps.Subsets) != 1 || len(eps.Subsets[0].Addresses) != 1 || eps.Subsets[0].Addresses[0].IP != "192.0.2.2" {
		t.Errorf("endpoints of the kubernetes Service: %+v, %v", eps, err)
	}
	if raw, err := clients[1].CoreV1().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx); err != nil || !bytes.Equal(raw, []byte("ok")) {
		t.Errorf("ready: %s, %v", raw, err)
	}
}

func tokenRequest() *authenticationv1.TokenRequest { return &authenticationv1.TokenRequest{} }
