package static

import (
	"crypto/md5" //nolint:gosec // names a version of a manifest, as upstream's does
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/kubectl/pkg/util/qos"
	"sigs.k8s.io/yaml"

	"keelson.dev/keelson/internal/api/podspec"
)

// The annotations of static pods and of their mirrors in the API.
const (
	HashAnnotation   = "kubernetes.io/config.hash"
	SourceAnnotation = "kubernetes.io/config.source"
	SeenAnnotation   = "kubernetes.io/config.seen"
	MirrorAnnotation = v1.MirrorPodAnnotationKey
)

// Is reports whether a pod is one of a manifest, and not of the API.
func Is(pod *v1.Pod) bool {
	source := pod.Annotations[SourceAnnotation]
	return source != "" && source != "api"
}

// Decode makes the pod of a manifest (YAML or JSON) from file on node, with the
// API's defaults. Its UID is a hash of what is in the manifest and where, so that
// a changed manifest is another pod.
func Decode(manifest []byte, file, node string, seen time.Time) (*v1.Pod, error) {
	var pod v1.Pod
	if err := yaml.Unmarshal(manifest, &pod); err != nil {
		return nil, err
	}
	if pod.Kind != "Pod" || pod.APIVersion != "v1" {
		return nil, fmt.Errorf("it has a %s of %q, want a Pod of \"v1\"", or(pod.Kind, "nothing"), pod.APIVersion)
	}
	if pod.Name == "" {
		return nil, fmt.Errorf("it has a pod without a name: give metadata.name")
	}
	if pod.UID == "" {
		b, err := json.Marshal(&pod)
		if err != nil {
			return nil, err
		}
		sum := md5.Sum(fmt.Appendf(b, "host:%sfile:%s", node, file)) //nolint:gosec // see above
		pod.UID = types.UID(hex.EncodeToString(sum[:]))
	}
	pod.Name += "-" + strings.ToLower(node)
	if pod.Namespace == "" {
		pod.Namespace = metav1.NamespaceDefault
	}
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[HashAnnotation] = string(pod.UID)
	pod.Annotations[SourceAnnotation] = "file"
	pod.Annotations[SeenAnnotation] = seen.Format(time.RFC3339Nano)
	pod.Spec.NodeName = node
	pod.Spec.Tolerations = append(pod.Spec.Tolerations, v1.Toleration{Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoExecute})
	podspec.SetDefaultsPod(&pod)
	if errs := podspec.ValidatePod(&pod); len(errs) > 0 {
		return nil, errs.ToAggregate()
	}
	pod.Status = v1.PodStatus{Phase: v1.PodPending, QOSClass: qos.ComputePodQOS(&pod)}
	return &pod, nil
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// IsStatic reports whether the pod is from a manifest of the node.
func IsStatic(pod *v1.Pod) bool {
	source := pod.Annotations[SourceAnnotation]
	return source != "" && source != "api" && pod.Annotations[MirrorAnnotation] == ""
}

// IsMirror reports whether the pod shows a static pod in the API.
func IsMirror(pod *v1.Pod) bool {
	_, ok := pod.Annotations[MirrorAnnotation]
	return ok
}

// Mirror returns the mirror pod, which shows the static pod in the API and is
// owned by the node.
func Mirror(pod *v1.Pod, node types.UID) *v1.Pod {
	controller := true
	m := pod.DeepCopy()
	m.ObjectMeta = metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace, Labels: m.Labels, Annotations: m.Annotations, Finalizers: m.Finalizers,
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: pod.Spec.NodeName, UID: node, Controller: &controller}}}
	m.Annotations[MirrorAnnotation] = pod.Annotations[HashAnnotation]
	m.Status = v1.PodStatus{}
	return m
}

// Shows reports whether mirror is of this version of the static pod.
func Shows(mirror, pod *v1.Pod) bool {
	return mirror.DeletionTimestamp == nil && mirror.Annotations[MirrorAnnotation] == pod.Annotations[HashAnnotation]
}
