package conformance

import (
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// files is a kind of volume with the keys of an object as files: config map or
// secret.
type files struct {
	title string
	// create makes the object, with these keys, in a namespace; write replaces them,
	// and remove removes it.
	create, write func(t *T, namespace, name string, data map[string]string)
	remove        func(t *T, name string)
	// source returns the volume of the object.
	source func(name string, items []v1.KeyToPath, mode *int32, optional bool) v1.VolumeSource
}

func createConfigMap(t *T, namespace, name string, data map[string]string) {
	t.Helper()
	got[*v1.ConfigMap](t)(t.Client.CoreV1().ConfigMaps(namespace).Create(t.Context(), &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data}, create))
}

func writeConfigMap(t *T, namespace, name string, data map[string]string) {
	t.Helper()
	got[*v1.ConfigMap](t)(t.Client.CoreV1().ConfigMaps(namespace).Update(t.Context(), &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data}, update))
}

func removeConfigMap(t *T, name string) {
	t.Helper()
	t.must(t.Client.CoreV1().ConfigMaps(t.NS).Delete(t.Context(), name, remove))
}

func createSecret(t *T, namespace, name string, data map[string]string) {
	t.Helper()
	got[*v1.Secret](t)(t.Client.CoreV1().Secrets(namespace).Create(t.Context(), &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: data}, create))
}

func writeSecret(t *T, namespace, name string, data map[string]string) {
	t.Helper()
	got[*v1.Secret](t)(t.Client.CoreV1().Secrets(namespace).Update(t.Context(), &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: data}, update))
}

func removeSecret(t *T, name string) {
	t.Helper()
	t.must(t.Client.CoreV1().Secrets(t.NS).Delete(t.Context(), name, remove))
}

func projection(mode *int32, all ...v1.VolumeProjection) v1.VolumeSource {
	return v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{Sources: all, DefaultMode: mode}}
}

var kindsOfFiles = []files{
	{"ConfigMap", createConfigMap, writeConfigMap, removeConfigMap, func(name string, items []v1.KeyToPath, mode *int32, optional bool) v1.VolumeSource {
		return v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: name}, Items: items, DefaultMode: mode, Optional: &optional}}
	}},
	{"Projected configMap", createConfigMap, writeConfigMap, removeConfigMap, func(name string, items []v1.KeyToPath, mode *int32, optional bool) v1.VolumeSource {
		return projection(mode, v1.VolumeProjection{ConfigMap: &v1.ConfigMapProjection{LocalObjectReference: v1.LocalObjectReference{Name: name}, Items: items, Optional: &optional}})
	}},
	{"Secrets", createSecret, writeSecret, removeSecret, func(name string, items []v1.KeyToPath, mode *int32, optional bool) v1.VolumeSource {
		return v1.VolumeSource{Secret: &v1.SecretVolumeSource{SecretName: name, Items: items, DefaultMode: mode, Optional: &optional}}
	}},
	{"Projected secret", createSecret, writeSecret, removeSecret, func(name string, items []v1.KeyToPath, mode *int32, optional bool) v1.VolumeSource {
		return projection(mode, v1.VolumeProjection{Secret: &v1.SecretProjection{LocalObjectReference: v1.LocalObjectReference{Name: name}, Items: items, Optional: &optional}})
	}},
}

// mounted adds a volume to the pod that its first container mounts at /name.
func mounted(name string, source v1.VolumeSource) func(*v1.Pod) {
	return func(p *v1.Pod) {
		p.Spec.Volumes = append(p.Spec.Volumes, v1.Volume{Name: name, VolumeSource: source})
		c := &p.Spec.Containers[0]
		c.VolumeMounts = append(c.VolumeMounts, v1.VolumeMount{Name: name, MountPath: "/" + name})
	}
}

func asUser(uid int64, group *int64) func(*v1.Pod) {
	return func(p *v1.Pod) {
		p.Spec.SecurityContext = &v1.PodSecurityContext{RunAsUser: &uid, FSGroup: group}
	}
}

func nobodyUser(p *v1.Pod) { asUser(1000, nil)(p) }

// consumed is one way to mount the object's files: the file, its mode and owner.
type consumed struct {
	rest   string
	items  []v1.KeyToPath
	mode   *int32
	change func(*v1.Pod)
	file   string
	want   string // the output of stat for the file
}

var mapped = []v1.KeyToPath{{Key: "data-2", Path: "path/to/data-2"}}

func mappedWith(mode int32) []v1.KeyToPath {
	return []v1.KeyToPath{{Key: "data-2", Path: "path/to/data-2", Mode: &mode}}
}

// ways are common to all kinds.
var ways = []consumed{
	{rest: "should be consumable from pods in volume", file: "data-1", want: "644"},
	{rest: "should be consumable from pods in volume with defaultMode set", mode: ptr.To[int32](0o400), file: "data-1", want: "400"},
	{rest: "should be consumable from pods in volume with mappings", items: mapped, file: "path/to/data-2", want: "644"},
}

var configMapWays = []consumed{
	{rest: "should be consumable from pods in volume as non-root", change: nobodyUser, file: "data-1", want: "644"},
	{rest: "should be consumable from pods in volume with mappings as non-root", items: mapped, change: nobodyUser, file: "path/to/data-2", want: "644"},
	{rest: "should be consumable from pods in volume with mappings and Item mode set", items: mappedWith(0o400), file: "path/to/data-2", want: "400"},
}

var secretWays = []consumed{
	{rest: "should be consumable from pods in volume as non-root with defaultMode and fsGroup set", mode: ptr.To[int32](0o440), change: asUser(1000, ptr.To[int64](1001)), file: "data-1", want: "440 1001"},
	{rest: "should be consumable from pods in volume with mappings and Item Mode set", items: mappedWith(0o400), file: "path/to/data-2", want: "400"},
}

// isMap reports whether a kind is of config maps.
func (k files) isMap() bool { return strings.Contains(strings.ToLower(k.title), "configmap") }

var _ = func() bool {
	for _, k := range kindsOfFiles {
		mine, multiple := append(append([]consumed{}, ways...), secretWays...), "should be consumable in multiple volumes in a pod"
		if k.isMap() {
			mine, multiple = append(append([]consumed{}, ways...), configMapWays...), "should be consumable in multiple volumes in the same pod"
		}
		for _, w := range mine {
			InContainers("[sig-storage] "+k.title+" "+w.rest, func(t *T) { t.consume(k, w) })
		}
		InContainers("[sig-storage] "+k.title+" "+multiple, func(t *T) {
			k.create(t, t.NS, "object", map[string]string{"data-1": "value-1"})
			t.prints(t.script("p", "cat /one/data-1 /two/data-1", mounted("one", k.source("object", nil, nil, false)), mounted("two", k.source("object", nil, nil, false))), "value-1value-1")
		})
		InContainers("[sig-storage] "+k.title+" optional updates should be reflected in volume", func(t *T) { t.optional(k) })
		if k.isMap() {
			InContainers("[sig-storage] "+k.title+" updates should be reflected in volume", func(t *T) {
				k.create(t, t.NS, "object", map[string]string{"data-1": "value-1"})
				t.makePod(t.script("p", watching("v/data-1"), mounted("v", k.source("object", nil, nil, false))))
				t.hears("p", "main", "v/data-1: value-1")
				k.write(t, t.NS, "object", map[string]string{"data-1": "value-2"})
				t.hears("p", "main", "v/data-1: value-2")
			})
		}
	}
	return true
}()

func (t *T) consume(k files, w consumed) {
	k.create(t, t.NS, "object", map[string]string{"data-1": "value-1", "data-2": "value-2", "data-3": "value-3"})
	format, change := "%a", w.change
	if strings.Contains(w.want, " ") {
		format = "%a %g"
	}
	if change == nil {
		change = func(*v1.Pod) {}
	}
	out := t.output(t.script("p", fmt.Sprintf("cat /v/%s && echo && stat -L -c '%s' /v/%[1]s && find /v -follow -name 'data-*' -type f | grep -v '/\\.\\.' | wc -l", w.file, format),
		mounted("v", k.source("object", w.items, w.mode, false)), change))
	count := "3"
	if w.items != nil {
		count = "1"
	}
	value := "value-" + w.file[len(w.file)-1:]
	if want := value + "\n" + w.want + "\n" + count + "\n"; out != want {
		t.Errorf("the pod says %q, want %q", out, want)
	}
}

// watching returns a script that prints files, again and again, or "none" for a missing
// file.
func watching(names ...string) string {
	return `while :; do for f in ` + strings.Join(names, " ") + `; do echo "$f: $(cat /$f 2>/dev/null || echo none)"; done; sleep 0.2; done`
}

// optional checks a volume of optional objects, of which one is deleted, one
// changed and one created.
func (t *T) optional(k files) {
	k.create(t, t.NS, "del", map[string]string{"data-1": "value-1"})
	k.create(t, t.NS, "upd", map[string]string{"data-1": "value-1"})
	t.makePod(t.script("p", watching("del/data-1", "upd/data-3", "cre/data-1"),
		mounted("del", k.source("del", nil, nil, true)), mounted("upd", k.source("upd", nil, nil, true)), mounted("cre", k.source("cre", nil, nil, true))))
	t.hears("p", "main", "del/data-1: value-1")
	t.hears("p", "main", "cre/data-1: none")
	k.remove(t, "del")
	k.write(t, t.NS, "upd", map[string]string{"data-3": "value-3"})
	k.create(t, t.NS, "cre", map[string]string{"data-1": "value-1"})
	t.hears("p", "main", "cre/data-1: value-1")
	t.hears("p", "main", "upd/data-3: value-3")
	t.hears("p", "main", "del/data-1: none")
}

var _ = InContainers("[sig-storage] ConfigMap binary data should be reflected in volume", func(t *T) {
	got[*v1.ConfigMap](t)(t.Client.CoreV1().ConfigMaps(t.NS).Create(t.Context(), &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "object"},
		Data: map[string]string{"data-1": "value-1"}, BinaryData: map[string][]byte{"dump.bin": {0xde, 0xca, 0xfe, 0xba, 0xd0, 0xfe, 0xff}}}, create))
	t.prints(t.script("p", "cat /v/data-1; echo; hexdump -C /v/dump.bin", mounted("v", kindsOfFiles[0].source("object", nil, nil, false))), "value-1\n", "de ca fe ba d0 fe ff")
})

var _ = InContainers("[sig-storage] Secrets should be able to mount in a volume regardless of a different secret existing with same name in different namespace", func(t *T) {
	other := t.NS + "-other"
	got[*v1.Namespace](t)(t.Client.CoreV1().Namespaces().Create(t.Context(), &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: other}}, create))
	defer func() { t.must(t.Client.CoreV1().Namespaces().Delete(t.Context(), other, remove)) }()
	createSecret(t, other, "object", map[string]string{"this_should_not_match_content_of_other_secret": "similarly_this_should_not_match_content_of_other_secret\n"})
	createSecret(t, t.NS, "object", map[string]string{"data-1": "value-1"})
	if out := t.output(t.script("p", "ls /v; cat /v/data-1", mounted("v", kindsOfFiles[2].source("object", nil, nil, false)))); out != "data-1\nvalue-1" {
		t.Errorf("the pod says %q", out)
	}
})

var _ = It("[sig-storage] ConfigMap should be immutable if `immutable` field is set", func(t *T) {
	maps := t.Client.CoreV1().ConfigMaps(t.NS)
	o := got[*v1.ConfigMap](t)(maps.Create(t.Context(), &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "immutable"}, Data: map[string]string{"data-1": "value-1"}}, create))
	o.Data["data-1"] = "value-2"
	o = got[*v1.ConfigMap](t)(maps.Update(t.Context(), o, update))
	o.Immutable = ptr.To(true)
	o = got[*v1.ConfigMap](t)(maps.Update(t.Context(), o, update))
	for what, change := range map[string]func(*v1.ConfigMap){
		"the data":      func(o *v1.ConfigMap) { o.Data["data-1"] = "value-3" },
		"the mark":      func(o *v1.ConfigMap) { o.Immutable = ptr.To(false) },
		"the mark away": func(o *v1.ConfigMap) { o.Immutable = nil },
		"binary data":   func(o *v1.ConfigMap) { o.BinaryData = map[string][]byte{"x": {1}} },
	} {
		next := o.DeepCopy()
		change(next)
		if _, err := maps.Update(t.Context(), next, update); !apierrors.IsInvalid(err) {
			t.Errorf("changing %s: %v", what, err)
		}
	}
	o.Labels = map[string]string{"label1": "value1"}
	got[*v1.ConfigMap](t)(maps.Update(t.Context(), o, update))
	t.must(maps.Delete(t.Context(), "immutable", remove))
})

var _ = It("[sig-storage] Secrets should be immutable if `immutable` field is set", func(t *T) {
	secrets := t.Client.CoreV1().Secrets(t.NS)
	o := got[*v1.Secret](t)(secrets.Create(t.Context(), &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "immutable"}, Data: map[string][]byte{"data-1": []byte("value-1\n")}}, create))
	o.Data["data-1"] = []byte("value-2\n")
	o = got[*v1.Secret](t)(secrets.Update(t.Context(), o, update))
	o.Immutable = ptr.To(true)
	o = got[*v1.Secret](t)(secrets.Update(t.Context(), o, update))
	for what, change := range map[string]func(*v1.Secret){
		"the data":      func(o *v1.Secret) { o.Data["data-1"] = []byte("value-3\n") },
		"the mark":      func(o *v1.Secret) { o.Immutable = ptr.To(false) },
		"the mark away": func(o *v1.Secret) { o.Immutable = nil },
	} {
		next := o.DeepCopy()
		change(next)
		if _, err := secrets.Update(t.Context(), next, update); !apierrors.IsInvalid(err) {
			t.Errorf("changing %s: %v", what, err)
		}
	}
	o.Labels = map[string]string{"label1": "value1"}
	got[*v1.Secret](t)(secrets.Update(t.Context(), o, update))
	t.must(secrets.Delete(t.Context(), "immutable", remove))
})
