package conformance

import (
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"keelson.dev/keelson/test/harness"
)

func (t *T) makeConfigMap(name string, data map[string]string) {
	t.Helper()
	got[*v1.ConfigMap](t)(t.Client.CoreV1().ConfigMaps(t.NS).Create(t.Context(), configMap(name, data), create))
}

func (t *T) makeSecret(name string, data map[string][]byte) {
	t.Helper()
	got[*v1.Secret](t)(t.Client.CoreV1().Secrets(t.NS).Create(t.Context(), &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data}, create))
}

// env adds environment variables to the first container.
func env(vars ...v1.EnvVar) func(*v1.Pod) {
	return first(func(c *v1.Container) { c.Env = append(c.Env, vars...) })
}

func envFrom(from ...v1.EnvFromSource) func(*v1.Pod) {
	return first(func(c *v1.Container) { c.EnvFrom = from })
}

func fromConfigMap(name string) *v1.ConfigMapEnvSource {
	return &v1.ConfigMapEnvSource{LocalObjectReference: v1.LocalObjectReference{Name: name}}
}

func fromSecret(name string) *v1.SecretEnvSource {
	return &v1.SecretEnvSource{LocalObjectReference: v1.LocalObjectReference{Name: name}}
}

// field returns a variable of a field of the pod.
func field(name, path string) v1.EnvVar {
	return v1.EnvVar{Name: name, ValueFrom: &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{FieldPath: path}}}
}

func amount(name, of string) v1.EnvVar {
	return v1.EnvVar{Name: name, ValueFrom: &v1.EnvVarSource{ResourceFieldRef: &v1.ResourceFieldSelector{Resource: of}}}
}

var _ = InContainers("[sig-node] ConfigMap should be consumable via environment variable", func(t *T) {
	t.makeConfigMap("c", map[string]string{"data-1": "value-1"})
	t.prints(t.script("p", "env", env(v1.EnvVar{Name: "CONFIG_DATA_1", ValueFrom: &v1.EnvVarSource{
		ConfigMapKeyRef: &v1.ConfigMapKeySelector{LocalObjectReference: v1.LocalObjectReference{Name: "c"}, Key: "data-1"}}})), "CONFIG_DATA_1=value-1")
})

var _ = InContainers("[sig-node] ConfigMap should be consumable via the environment", func(t *T) {
	t.makeConfigMap("c", map[string]string{"data_1": "value-1", "data_2": "value-2"})
	t.prints(t.script("p", "env", envFrom(v1.EnvFromSource{ConfigMapRef: fromConfigMap("c")}, v1.EnvFromSource{Prefix: "p_", ConfigMapRef: fromConfigMap("c")})),
		"\ndata_1=value-1\n", "\ndata_2=value-2\n", "p_data_1=value-1\n", "p_data_2=value-2\n")
})

var _ = InContainers("[sig-node] ConfigMap should be consumable as environment variable names with various prefixes", func(t *T) {
	data := map[string]string{"data_1": "value-1", "data_2": "value-2"}
	t.makeConfigMap("c", data)
	var from []v1.EnvFromSource
	var want []string
	for _, prefix := range []string{"", "p_", "p-", "p.", "a.b-C_", "1"} {
		from = append(from, v1.EnvFromSource{Prefix: prefix, ConfigMapRef: fromConfigMap("c")})
		for k, v := range data {
			want = append(want, "\n"+prefix+k+"="+v+"\n")
		}
	}
	// The shell does not pass on variables whose names are no identifiers; the
	// container's environment has them.
	t.prints(t.script("p", `echo; tr '\0' '\n' < /proc/self/environ; echo`, envFrom(from...)), want...)
})

var _ = InContainers("[sig-node] Secrets should be consumable from pods in env vars", func(t *T) {
	t.makeSecret("s", map[string][]byte{"data-1": []byte("value-1\n")})
	t.prints(t.script("p", "env", env(v1.EnvVar{Name: "SECRET_DATA", ValueFrom: &v1.EnvVarSource{
		SecretKeyRef: &v1.SecretKeySelector{LocalObjectReference: v1.LocalObjectReference{Name: "s"}, Key: "data-1"}}})), "SECRET_DATA=value-1\n")
})

var _ = InContainers("[sig-node] Secrets should be consumable via the environment", func(t *T) {
	t.makeSecret("s", map[string][]byte{"data_1": []byte("value-1"), "data_2": []byte("value-2")})
	t.prints(t.script("p", "env", envFrom(v1.EnvFromSource{SecretRef: fromSecret("s")}, v1.EnvFromSource{Prefix: "p_", SecretRef: fromSecret("s")})),
		"\ndata_1=value-1\n", "\ndata_2=value-2\n", "p_data_1=value-1\n", "p_data_2=value-2\n")
})

var _ = InContainers("[sig-node] Secrets should be consumable as environment variable names variable names with various prefixes", func(t *T) {
	t.makeSecret("s", map[string][]byte{"data_1": []byte("value-1")})
	var from []v1.EnvFromSource
	var want []string
	for _, prefix := range []string{"", "p_", "p-", "p.", "a.b-C_", "1"} {
		from = append(from, v1.EnvFromSource{Prefix: prefix, SecretRef: fromSecret("s")})
		want = append(want, "\n"+prefix+"data_1=value-1\n")
	}
	t.prints(t.script("p", `echo; tr '\0' '\n' < /proc/self/environ; echo`, envFrom(from...)), want...)
})

var _ = It("[sig-node] ConfigMap should fail to create ConfigMap with empty key", func(t *T) {
	if _, err := t.Client.CoreV1().ConfigMaps(t.NS).Create(t.Context(), configMap("c", map[string]string{"": "value-1"}), create); !apierrors.IsInvalid(err) {
		t.Errorf("got %v, want Invalid", err)
	}
})

var _ = It("[sig-node] Secrets should fail to create secret due to empty secret key", func(t *T) {
	s := &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Data: map[string][]byte{"": []byte("value-1")}}
	if _, err := t.Client.CoreV1().Secrets(t.NS).Create(t.Context(), s, create); !apierrors.IsInvalid(err) {
		t.Errorf("got %v, want Invalid", err)
	}
})

var _ = It("[sig-node] ConfigMap should update ConfigMap successfully", func(t *T) {
	t.makeConfigMap("c", nil)
	c := got[*v1.ConfigMap](t)(t.Client.CoreV1().ConfigMaps(t.NS).Get(t.Context(), "c", get))
	c.Data = map[string]string{"data": "value"}
	got[*v1.ConfigMap](t)(t.Client.CoreV1().ConfigMaps(t.NS).Update(t.Context(), c, update))
	if c := got[*v1.ConfigMap](t)(t.Client.CoreV1().ConfigMaps(t.NS).Get(t.Context(), "c", get)); c.Data["data"] != "value" {
		t.Errorf("data %v", c.Data)
	}
})

var _ = It("[sig-node] ConfigMap should run through a ConfigMap lifecycle", func(t *T) {
	maps, mine := t.Client.CoreV1().ConfigMaps(t.NS), metav1.ListOptions{LabelSelector: "conformance=" + t.NS}
	w := got[watch.Interface](t)(maps.Watch(t.Context(), mine))
	defer w.Stop()
	c := configMap("c", map[string]string{"valueName": "value"})
	c.Labels = map[string]string{"conformance": t.NS}
	got[*v1.ConfigMap](t)(maps.Create(t.Context(), c, create))
	t.event(w, watch.Added, nil)
	got[*v1.ConfigMap](t)(maps.Patch(t.Context(), "c", types.StrategicMergePatchType, patchOf(dict{"metadata": dict{"labels": dict{"patched": "yes"}}, "data": dict{"valueName": "other"}}), metav1.PatchOptions{}))
	t.event(w, watch.Modified, nil)
	if c := got[*v1.ConfigMap](t)(maps.Get(t.Context(), "c", get)); c.Data["valueName"] != "other" || c.Labels["patched"] != "yes" {
		t.Errorf("after the patch: %v %v", c.Data, c.Labels)
	}
	if l := got[*v1.ConfigMapList](t)(t.Client.CoreV1().ConfigMaps("").List(t.Context(), mine)); len(l.Items) != 1 || l.Items[0].Data["valueName"] != "other" {
		t.Errorf("in all namespaces: %v", l.Items)
	}
	t.must(maps.DeleteCollection(t.Context(), remove, mine))
	t.event(w, watch.Deleted, nil)
	if l := got[*v1.ConfigMapList](t)(maps.List(t.Context(), mine)); len(l.Items) != 0 {
		t.Errorf("after the deletion: %v", l.Items)
	}
})

var _ = It("[sig-node] Secrets should patch a secret", func(t *T) {
	secrets, mine := t.Client.CoreV1().Secrets(t.NS), metav1.ListOptions{LabelSelector: "conformance=" + t.NS}
	s := &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s", Labels: map[string]string{"conformance": t.NS}}, Data: map[string][]byte{"key": []byte("value")}, Type: v1.SecretTypeOpaque}
	got[*v1.Secret](t)(secrets.Create(t.Context(), s, create))
	got[*v1.Secret](t)(secrets.Patch(t.Context(), "s", types.StrategicMergePatchType, patchOf(dict{"metadata": dict{"labels": dict{"patched": "yes"}}, "data": dict{"key": []byte("value1")}}), metav1.PatchOptions{}))
	l := got[*v1.SecretList](t)(t.Client.CoreV1().Secrets("").List(t.Context(), mine))
	if len(l.Items) != 1 || string(l.Items[0].Data["key"]) != "value1" || l.Items[0].Labels["patched"] != "yes" {
		t.Errorf("after the patch: %v", l.Items)
	}
	t.must(secrets.DeleteCollection(t.Context(), remove, mine))
	if l := got[*v1.SecretList](t)(secrets.List(t.Context(), mine)); len(l.Items) != 0 {
		t.Errorf("after the deletion: %v", l.Items)
	}
})

var _ = InContainers("[sig-node] Downward API should provide pod name, namespace and IP address as env vars", func(t *T) {
	p := t.script("p", "env; sleep 1000", env(field("POD_NAME", "metadata.name"), field("POD_NAMESPACE", "metadata.namespace"), field("POD_IP", "status.podIP")))
	t.makePod(p)
	t.hears("p", "main", "POD_IP=")
	p = t.inPhase("p", v1.PodRunning)
	for _, s := range []string{"POD_NAME=p\n", "POD_NAMESPACE=" + t.NS + "\n", "POD_IP=" + p.Status.PodIP + "\n"} {
		t.hears("p", "main", s)
	}
})

var _ = InContainers("[sig-node] Downward API should provide host IP as an env var", func(t *T) {
	out := t.output(t.script("p", "env", env(field("HOST_IP", "status.hostIP"))))
	if p := t.inPhase("p", v1.PodSucceeded); p.Status.HostIP == "" || !strings.Contains(out, "HOST_IP="+p.Status.HostIP+"\n") {
		t.Errorf("host IP %q, and:\n%s", p.Status.HostIP, out)
	}
})

var _ = InContainers("[sig-node] Downward API should provide hostIPs as an env var", func(t *T) {
	for _, network := range []bool{false, true} {
		name := fmt.Sprintf("p-%v", network)
		out := t.output(t.script(name, "env", env(field("HOST_IPS", "status.hostIPs")), func(p *v1.Pod) { p.Spec.HostNetwork = network }))
		var ips []string
		for _, ip := range t.inPhase(name, v1.PodSucceeded).Status.HostIPs {
			ips = append(ips, ip.IP)
		}
		if len(ips) == 0 || !strings.Contains(out, "HOST_IPS="+strings.Join(ips, ",")+"\n") {
			t.Errorf("host network %v: host IPs %v, and:\n%s", network, ips, out)
		}
	}
})

var _ = InContainers("[sig-node] Downward API should provide pod UID as env vars", func(t *T) {
	out := t.output(t.script("p", "env", env(field("POD_UID", "metadata.uid"))))
	if p := t.inPhase("p", v1.PodSucceeded); !strings.Contains(out, "POD_UID="+string(p.UID)+"\n") {
		t.Errorf("UID %s, and:\n%s", p.UID, out)
	}
})

var limitsAndRequests = env(amount("CPU_LIMIT", "limits.cpu"), amount("MEMORY_LIMIT", "limits.memory"), amount("CPU_REQUEST", "requests.cpu"), amount("MEMORY_REQUEST", "requests.memory"))

var _ = InContainers("[sig-node] Downward API should provide container's limits.cpu/memory and requests.cpu/memory as env vars", func(t *T) {
	p := t.script("p", "env", limitsAndRequests, first(func(c *v1.Container) {
		c.Resources = v1.ResourceRequirements{Requests: amounts("cpu", "25m", "memory", "32Mi"), Limits: amounts("cpu", "1250m", "memory", "64Mi")}
	}))
	t.prints(p, "CPU_LIMIT=2\n", "MEMORY_LIMIT=67108864\n", "CPU_REQUEST=1\n", "MEMORY_REQUEST=33554432\n")
})

var _ = InContainers("[sig-node] Downward API should provide default limits.cpu/memory from node allocatable", func(t *T) {
	out := t.output(t.script("p", "env", env(amount("CPU_LIMIT", "limits.cpu"), amount("MEMORY_LIMIT", "limits.memory"))))
	p := t.inPhase("p", v1.PodSucceeded)
	n := got[*v1.Node](t)(t.Client.CoreV1().Nodes().Get(t.Context(), p.Spec.NodeName, get))
	for _, s := range []string{fmt.Sprintf("CPU_LIMIT=%d\n", n.Status.Allocatable.Cpu().Value()), fmt.Sprintf("MEMORY_LIMIT=%d\n", n.Status.Allocatable.Memory().Value())} {
		if !strings.Contains(out, s) {
			t.Errorf("%q is not in:\n%s", s, out)
		}
	}
})

var _ = InContainers("[sig-node] Variable Expansion should allow composing env vars into new env vars", func(t *T) {
	t.prints(t.script("p", "env", env(v1.EnvVar{Name: "FOO", Value: "foo-value"}, v1.EnvVar{Name: "BAR", Value: "bar-value"}, v1.EnvVar{Name: "FOOBAR", Value: "$(FOO);;$(BAR)"})),
		"FOO=foo-value\n", "BAR=bar-value\n", "FOOBAR=foo-value;;bar-value\n")
})

var _ = InContainers("[sig-node] Variable Expansion should allow substituting values in a container's command", func(t *T) {
	t.prints(t.script("p", `TEST_VAR=wrong echo "$(TEST_VAR)"`, env(v1.EnvVar{Name: "TEST_VAR", Value: "test-value"})), "test-value\n")
})

var _ = InContainers("[sig-node] Variable Expansion should allow substituting values in a container's args", func(t *T) {
	t.prints(t.script("p", "", env(v1.EnvVar{Name: "TEST_VAR", Value: "test-value"}), first(func(c *v1.Container) {
		c.Command, c.Args = []string{"sh", "-c"}, []string{`TEST_VAR=wrong echo "$(TEST_VAR)"`}
	})), "test-value\n")
})

// expanded mounts the volume at the path, by an expression of a path in it.
func expanded(volume, path, expr string) func(*v1.Pod) {
	return func(p *v1.Pod) {
		c := &p.Spec.Containers[0]
		c.VolumeMounts = append(c.VolumeMounts, v1.VolumeMount{Name: volume, MountPath: path, SubPathExpr: expr})
	}
}

var _ = InContainers("[sig-node] Variable Expansion should allow substituting values in a volume subpath", func(t *T) {
	t.prints(t.script("p", "touch /logscontainer/file && ls -d /testcontainer/p/file", env(v1.EnvVar{Name: "POD_NAME", Value: "p"}),
		emptyDir("workdir", "/testcontainer"), expanded("workdir", "/logscontainer", "$(POD_NAME)")), "/testcontainer/p/file\n")
})

var _ = InContainers("[sig-node] Variable Expansion should fail substituting values in a volume subpath with backticks", func(t *T) {
	t.makePod(t.script("p", "true", env(v1.EnvVar{Name: "POD_NAME", Value: ".."}), emptyDir("workdir", "/w"), expanded("workdir", "/logscontainer", "$(POD_NAME)")))
	t.waitsFor("p", "CreateContainerConfigError")
})

var _ = InContainers("[sig-node] Variable Expansion should fail substituting values in a volume subpath with absolute path", func(t *T) {
	t.makePod(t.script("p", "true", env(v1.EnvVar{Name: "POD_NAME", Value: "/tmp"}), emptyDir("workdir", "/w"), expanded("workdir", "/logscontainer", "$(POD_NAME)")))
	t.waitsFor("p", "CreateContainerConfigError")
})

// annotated adds an annotation to the pod, and an environment variable with its
// value to the first container.
func annotated(name, value string) func(*v1.Pod) {
	return func(p *v1.Pod) {
		p.Annotations = map[string]string{name: value}
		env(field("ANNOTATION", "metadata.annotations['"+name+"']"))(p)
	}
}

func (t *T) annotate(pod, name, value string) {
	t.Helper()
	patch := patchOf(dict{"metadata": dict{"annotations": dict{name: value}}})
	got[*v1.Pod](t)(t.Client.CoreV1().Pods(t.NS).Patch(t.Context(), pod, types.MergePatchType, patch, metav1.PatchOptions{}))
}

var _ = InContainers("[sig-node] Variable Expansion should verify that a failing subpath expansion can be modified during the lifecycle of a container", func(t *T) {
	t.makePod(t.script("p", "sleep 1000", annotated("mysubpath", "../nowhere"), emptyDir("workdir", "/w"), expanded("workdir", "/subpath", "$(ANNOTATION)")))
	t.waitsFor("p", "CreateContainerConfigError")
	t.annotate("p", "mysubpath", "mypath")
	t.inPhase("p", v1.PodRunning)
})

var _ = InContainers("[sig-node] Variable Expansion should succeed in writing subpaths in container", func(t *T) {
	t.makePod(t.script("p", "sleep 1000", annotated("mysubpath", "mypath"), emptyDir("workdir", "/volume_mount"), expanded("workdir", "/subpath_mount", "$(ANNOTATION)/$(POD_NAME)"),
		env(field("POD_NAME", "metadata.name"))))
	t.inPhase("p", v1.PodRunning)
	t.inContainer("p", "main", "touch", "/volume_mount/mypath/p/test.log")
	t.inContainer("p", "main", "test", "-f", "/subpath_mount/test.log")
	t.annotate("p", "mysubpath", "mynewpath")
	harness.Succeeds(t, "the old path", func() error {
		_, err := t.kubectl("", "exec", "p", "--", "test", "-f", "/subpath_mount/test.log")
		return err
	})
})
