package static

import (
	"crypto/md5" //nolint:gosec // names a version of a manifest, as upstream's does
	"encoding/hex"
	"encoding/json"
	"errors"
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

// Origin is where a manifest is from.
type Origin struct {
	// Source is its kind, as SourceAnnotation has it: FileSource or URLSource.
	Source string
	// Name is the file's, or the URL.
	Name string
}

// The sources of static pods.
const (
	FileSource = "file"
	URLSource  = "http"
)

// Decode makes the pod of a manifest (YAML or JSON) on node, with the API's defaults. Its UID is a hash
// of what is in the manifest and where, so that a changed manifest is another pod.
func Decode(manifest []byte, from Origin, node string, seen time.Time) (*v1.Pod, error) {
	var pod v1.Pod
	if err := yaml.Unmarshal(manifest, &pod); err != nil {
		return nil, err
	}
	if pod.Kind != "Pod" || pod.APIVersion != "v1" {
		return nil, fmt.Errorf("it has a %s of %q, want a Pod of \"v1\"", or(pod.Kind, "nothing"), pod.APIVersion)
	}
	return &pod, complete(&pod, from, node, seen)
}

// DecodeAll reads the pods of a manifest that has one, or a PodList.
func DecodeAll(manifest []byte, from Origin, node string, seen time.Time) ([]*v1.Pod, error) {
	var kind metav1.TypeMeta
	if err := yaml.Unmarshal(manifest, &kind); err != nil {
		return nil, err
	}
	if kind.Kind != "PodList" || kind.APIVersion != "v1" {
		pod, err := Decode(manifest, from, node, seen)
		if err != nil {
			return nil, err
		}
		return []*v1.Pod{pod}, nil
	}
	var list v1.PodList
	if err := yaml.Unmarshal(manifest, &list); err != nil {
		return nil, err
	}
	var pods []*v1.Pod
	for i := range list.Items {
		if err := complete(&list.Items[i], from, node, seen); err != nil {
			return nil, fmt.Errorf("pod %d of the list: %w", i, err)
		}
		pods = append(pods, &list.Items[i])
	}
	return pods, nil
}

// complete makes a pod of a manifest one of the node.
func complete(pod *v1.Pod, from Origin, node string, seen time.Time) error {
	if pod.Name == "" {
		return errors.New("invalid pod: name is needed for the pod")
	}
	if pod.UID == "" {
		b, err := json.Marshal(pod)
		if err != nil {
			return err
		}
		seed := "url:" + from.Name
		if from.Source == FileSource {
			seed = "host:" + node + "file:" + from.Name
		}
		sum := md5.Sum(fmt.Appendf(b, "%s", seed)) //nolint:gosec // see above
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
	pod.Annotations[SourceAnnotation] = from.Source
	pod.Annotations[SeenAnnotation] = seen.Format(time.RFC3339Nano)
	pod.Spec.NodeName = node
	if from.Source == FileSource {
		pod.Spec.Tolerations = append(pod.Spec.Tolerations, v1.Toleration{Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoExecute})
	}
	podspec.SetDefaultsPod(pod)
	if errs := podspec.ValidatePod(pod); len(errs) > 0 {
		return fmt.Errorf("invalid pod: %w", errs.ToAggregate())
	}
	// What a static pod needs is not to depend on the API server, nor on who may write there.
	resource, err := podspec.APIReference(pod)
	if err != nil {
		return err
	}
	if resource != "" {
		return fmt.Errorf("static pods may not reference %s", resource)
	}
	pod.Status = v1.PodStatus{Phase: v1.PodPending, QOSClass: qos.ComputePodQOS(pod)}
	return nil
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
