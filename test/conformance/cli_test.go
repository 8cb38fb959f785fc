package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/version"
)

func (t *T) contains(text string, wanted ...string) {
	t.Helper()
	for _, w := range wanted {
		if !strings.Contains(text, w) {
			t.Errorf("%q is not in\n%s", w, text)
		}
	}
}

// manifest writes an object to a file, and returns its path.
func (t *T) manifest(format string, args ...any) string { return t.file(t.object(format, args...)) }

const rcManifest = "{apiVersion: v1, kind: ReplicationController, metadata: {name: %s}, spec: {replicas: %d, selector: {app: %s}, template: {metadata: {labels: {app: %s}}, spec: {terminationGracePeriodSeconds: 0, containers: [{name: web, image: keelson.local/demo, ports: [{containerPort: 80}]}]}}}}"

func (t *T) running(selector string, n int) []v1.Pod {
	t.Helper()
	var out []v1.Pod
	t.until(fmt.Sprintf("%d running pods of %s", n, selector), func(ctx context.Context) (bool, error) {
		l, err := t.Client.CoreV1().Pods(t.NS).List(ctx, metav1.ListOptions{LabelSelector: selector})
		if err != nil {
			return false, err
		}
		out = out[:0]
		for _, p := range l.Items {
			if p.Status.Phase == v1.PodRunning && p.DeletionTimestamp == nil {
				out = append(out, p)
			}
		}
		return len(out) == n && len(l.Items) == n, nil
	})
	return out
}

var _ = It("[sig-cli] Kubectl client Update Demo should create and stop a replication controller", func(t *T) {
	file := t.manifest(rcManifest, "nautilus", 2, "nautilus", "nautilus")
	t.kubectlOK("create", "-f", file)
	t.running("app=nautilus", 2)
	t.kubectlOK("delete", "--grace-period=0", "--force", "-f", file)
	t.podsOf("app=nautilus", 0)
})

var _ = It("[sig-cli] Kubectl client Update Demo should scale a replication controller", func(t *T) {
	t.kubectlOK("create", "-f", t.manifest(rcManifest, "nautilus", 2, "nautilus", "nautilus"))
	for _, n := range []int{2, 1, 2} {
		t.kubectlOK("scale", "rc", "nautilus", fmt.Sprintf("--replicas=%d", n), "--timeout=5m")
		t.running("app=nautilus", n)
	}
})

var _ = It("[sig-cli] Kubectl client Kubectl api-versions should check if v1 is in available api versions", func(t *T) {
	t.contains("\n"+t.kubectlOK("api-versions"), "\nv1\n", "\napps/v1\n")
})

var _ = It("[sig-cli] Kubectl client Kubectl cluster-info should check if Kubernetes control plane services is included in cluster-info", func(t *T) {
	t.contains(t.kubectlOK("cluster-info"), "Kubernetes control plane", "is running at")
})

var _ = It("[sig-cli] Kubectl client Kubectl describe should check if kubectl describe prints relevant information for rc and pods", func(t *T) {
	t.kubectlOK("create", "-f", t.manifest(rcManifest, "primary", 1, "primary", "primary"))
	p := t.running("app=primary", 1)[0]
	t.kubectlOK("expose", "rc", "primary", "--port=80", "--target-port=80")
	t.contains(t.kubectlOK("describe", "pod", p.Name), "Name:", "Namespace:", "Node:", "Labels:", "app=primary", "Status:", "Running", "IP:", "Controlled By:", "ReplicationController/primary", "Image:", "State:", "QoS Class:", "BestEffort")
	t.contains(t.kubectlOK("describe", "rc", "primary"), "Name:", "primary", "Replicas:", "1 current / 1 desired", "Pods Status:", "1 Running / 0 Waiting / 0 Succeeded / 0 Failed", "Pod Template:", "Image:", "Events:")
	t.contains(t.kubectlOK("describe", "service", "primary"), "Name:", "Labels:", "Selector:", "app=primary", "Type:", "ClusterIP", "IP:", "Port:", "<unset>", "80/TCP", "Endpoints:", "Session Affinity:")
	t.contains(t.kubectlOK("describe", "node", p.Spec.NodeName), "Name:", "Labels:", "Annotations:", "CreationTimestamp:", "Conditions:", "Type", "Status", "LastHeartbeatTime", "Reason", "Message", "Addresses:", "Capacity:", "Version", "Kernel Version", "Kubelet Version", "Pods")
	t.contains(t.kubectlOK("describe", "namespace", t.NS), "Name:", "Labels:", "Annotations:", "Status:", "Active")
})

var _ = It("[sig-cli] Kubectl client Kubectl diff should check if kubectl diff finds a difference for Deployments", func(t *T) {
	const d = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {replicas: 1, selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web, image: %s}]}}}}"
	t.kubectlOK("create", "-f", t.manifest(d, "keelson.local/demo"))
	out, err := t.kubectl("", "diff", "-f", t.manifest(d, "keelson.local/other"))
	if err == nil {
		t.Error("diff finds no difference")
	}
	t.contains(out, "-      - image: keelson.local/demo", "+      - image: keelson.local/other")
})

var _ = It("[sig-cli] Kubectl client Kubectl expose should create services for rc", func(t *T) {
	t.kubectlOK("create", "-f", t.manifest(rcManifest, "primary", 1, "primary", "primary"))
	ip := t.running("app=primary", 1)[0].Status.PodIP
	check := func(name string, port int32) {
		t.Helper()
		s := got[*v1.Service](t)(t.Client.CoreV1().Services(t.NS).Get(t.Context(), name, get))
		if len(s.Spec.Ports) != 1 || s.Spec.Ports[0].Port != port || s.Spec.Ports[0].TargetPort.IntValue() != 80 {
			t.Errorf("service %s: %+v", name, s.Spec.Ports)
		}
		t.until("the endpoints of "+name, func(ctx context.Context) (bool, error) {
			e, err := t.Client.CoreV1().Endpoints(t.NS).Get(ctx, name, get)
			return err == nil && len(e.Subsets) == 1 && e.Subsets[0].Addresses[0].IP == ip && e.Subsets[0].Ports[0].Port == 80, nil
		})
	}
	t.kubectlOK("expose", "rc", "primary", "--name=rm2", "--port=1234", "--target-port=80")
	check("rm2", 1234)
	t.kubectlOK("expose", "service", "rm2", "--name=rm3", "--port=2345", "--target-port=80")
	check("rm3", 2345)
})

var _ = It("[sig-cli] Kubectl client Kubectl label should update the label on a resource", func(t *T) {
	t.kubectlOK("run", "pause", "--image=keelson.local/demo", "--restart=Never")
	t.kubectlOK("label", "pods", "pause", "testing-label=testing-label-value")
	t.contains(t.kubectlOK("get", "pod", "pause", "-L", "testing-label"), "testing-label-value")
	t.kubectlOK("label", "pods", "pause", "testing-label-")
	if out := t.kubectlOK("get", "pod", "pause", "-L", "testing-label"); strings.Contains(out, "testing-label-value") {
		t.Errorf("the label is left: %s", out)
	}
})

var _ = It("[sig-cli] Kubectl client Kubectl patch should add annotations for pods in rc", func(t *T) {
	t.kubectlOK("create", "-f", t.manifest(rcManifest, "primary", 1, "primary", "primary"))
	p := t.running("app=primary", 1)[0]
	t.kubectlOK("patch", "pod", p.Name, "-p", `{"metadata":{"annotations":{"x":"y"}}}`)
	if a := got[*v1.Pod](t)(t.Client.CoreV1().Pods(t.NS).Get(t.Context(), p.Name, get)).Annotations["x"]; a != "y" {
		t.Errorf("annotation %q", a)
	}
})

var _ = It("[sig-cli] Kubectl client Kubectl replace should update a single-container pod's image", func(t *T) {
	t.kubectlOK("run", "web", "--image=keelson.local/demo", "--labels=run=web")
	t.running("run=web", 1)
	var o dict
	t.must(json.Unmarshal([]byte(t.kubectlOK("get", "pod", "web", "-o", "json")), &o))
	o["spec"].(dict)["containers"].([]any)[0].(dict)["image"] = "keelson.local/demo:latest"
	if out, err := t.kubectl(string(patchOf(o)), "replace", "-f", "-"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if i := got[*v1.Pod](t)(t.Client.CoreV1().Pods(t.NS).Get(t.Context(), "web", get)).Spec.Containers[0].Image; i != "keelson.local/demo:latest" {
		t.Errorf("image %s", i)
	}
})

var _ = It("[sig-cli] Kubectl client Kubectl run pod should create a pod from an image when restart is Never", func(t *T) {
	t.kubectlOK("run", "web", "--restart=Never", "--image=keelson.local/demo")
	p := got[*v1.Pod](t)(t.Client.CoreV1().Pods(t.NS).Get(t.Context(), "web", get))
	if p.Spec.Containers[0].Image != "keelson.local/demo" || p.Spec.RestartPolicy != v1.RestartPolicyNever {
		t.Errorf("%+v", p.Spec)
	}
})

var _ = It("[sig-cli] Kubectl client Kubectl server-side dry-run should check if kubectl can dry-run update Pods", func(t *T) {
	t.kubectlOK("run", "web", "--image=keelson.local/demo", "--labels=run=web")
	t.kubectlOK("patch", "pod", "web", "-p", `{"spec":{"containers":[{"name":"web","image":"keelson.local/other"}]}}`, "--dry-run=server")
	if i := got[*v1.Pod](t)(t.Client.CoreV1().Pods(t.NS).Get(t.Context(), "web", get)).Spec.Containers[0].Image; i != "keelson.local/demo" {
		t.Errorf("the dry run wrote image %s", i)
	}
	t.kubectlOK("delete", "pod", "web", "--grace-period=0", "--force")
})

var _ = It("[sig-cli] Kubectl client Kubectl version should check is all data is printed", func(t *T) {
	var v struct{ ClientVersion, ServerVersion version.Info }
	// A kubectl that was built without its version cannot compare it with the
	// server's, and prints a warning after the data.
	out, _ := t.kubectl("", "version", "-o", "json")
	t.must(json.NewDecoder(strings.NewReader(out)).Decode(&v))
	if v.ServerVersion.GitVersion == "" || v.ServerVersion.Major == "" || v.ClientVersion.GoVersion == "" {
		t.Errorf("%+v", v)
	}
	out, _ = t.kubectl("", "version")
	t.contains(out, "Client Version:", "Server Version:")
})

var _ = OverNetwork("[sig-cli] Kubectl client Guestbook application should create and stop a working application", func(t *T) {
	for name, n := range map[string]int{"primary": 1, "replica": 2, "frontend": 3} {
		t.kubectlOK("create", "-f", t.manifest("{apiVersion: apps/v1, kind: Deployment, metadata: {name: %[1]s}, spec: {replicas: %[2]d, selector: {matchLabels: {app: %[1]s}}, template: {metadata: {labels: {app: %[1]s}}, spec: {containers: [{name: web, image: keelson.local/demo, ports: [{containerPort: 80}]}]}}}}", name, n))
		t.kubectlOK("expose", "deployment", name, "--port=80")
	}
	for name, n := range map[string]int{"primary": 1, "replica": 2, "frontend": 3} {
		t.kubectlOK("rollout", "status", "deployment/"+name)
		t.until("an answer of "+name, func(ctx context.Context) (bool, error) {
			b, err := t.Client.CoreV1().Services(t.NS).ProxyGet("http", name, "80", "/", nil).DoRaw(ctx)
			return err == nil && strings.HasPrefix(string(b), "Hello from "+name), nil
		})
		d := got[*appsv1.Deployment](t)(t.Client.AppsV1().Deployments(t.NS).Get(t.Context(), name, get))
		if int(d.Status.AvailableReplicas) != n {
			t.Errorf("%s has %d replicas", name, d.Status.AvailableReplicas)
		}
	}
	t.kubectlOK("delete", "deployment,service", "--all")
})

var _ = InContainers("[sig-cli] Kubectl logs logs should be able to retrieve and filter logs", func(t *T) {
	t.kubectlOK("run", "logger", "--image=keelson.local/demo", "--restart=Never", "--", "echo", "-e", "first second third")
	t.until("the end of the pod", func(ctx context.Context) (bool, error) {
		p, err := t.Client.CoreV1().Pods(t.NS).Get(ctx, "logger", get)
		return err == nil && p.Status.Phase == v1.PodSucceeded, err
	})
	whole := t.kubectlOK("logs", "logger", "logger")
	t.contains(whole, "first second third")
	if out := t.kubectlOK("logs", "logger", "--limit-bytes=1"); len(out) != 1 {
		t.Errorf("limited to a byte: %q", out)
	}
	if out := t.kubectlOK("logs", "logger", "--tail=1"); strings.Count(out, "\n") != 1 {
		t.Errorf("the last line: %q", out)
	}
	if out := t.kubectlOK("logs", "logger", "--tail=1", "--timestamps"); len(out) < 20 || out[4] != '-' || out[10] != 'T' {
		t.Errorf("with its time: %q", out)
	}
	if out := t.kubectlOK("logs", "logger", "--since=24h"); out != whole {
		t.Errorf("of the last day: %q", out)
	}
})

var _ = InContainers("[sig-auth] ServiceAccounts should mount an API token into pods", func(t *T) {
	t.mounted("")
})

var _ = InContainers("[sig-auth] ServiceAccounts should mount projected service account token", func(t *T) {
	t.mounted(", volumes: [{name: own, projected: {sources: [{serviceAccountToken: {path: token, expirationSeconds: 43200, audience: mine}}]}}]")
})

// mounted reads the files of a pod's account in its container.
func (t *T) mounted(volumes string) {
	mount := ""
	if volumes != "" {
		mount = ", volumeMounts: [{name: own, mountPath: /own}]"
	}
	t.kubectlOK("create", "-f", t.manifest("{apiVersion: v1, kind: Pod, metadata: {name: p, labels: {app: p}}, spec: {containers: [{name: c, image: keelson.local/demo%s}]%s}}", mount, volumes))
	t.running("app=p", 1)
	cat := func(path string) string { return t.kubectlOK("exec", "p", "--", "/bin/demo", "cat", path) }
	const dir = "/var/run/secrets/kubernetes.io/serviceaccount/"
	if ns := cat(dir + "namespace"); ns != t.NS {
		t.Errorf("namespace %q", ns)
	}
	t.contains(cat(dir+"ca.crt"), "BEGIN CERTIFICATE")
	_, claims := t.jwt(strings.TrimSpace(cat(dir + "token")))
	if claims["sub"] != "system:serviceaccount:"+t.NS+":default" {
		t.Errorf("a token of %v", claims["sub"])
	}
	if volumes != "" {
		if _, claims := t.jwt(strings.TrimSpace(cat("/own/token"))); fmt.Sprint(claims["aud"]) != "[mine]" {
			t.Errorf("a token for %v", claims["aud"])
		}
	}
}
