package admission

import (
	"context"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
)

// accounts holds the accounts of a namespace, by name.
type accounts map[string]*v1.ServiceAccount

func (a accounts) ServiceAccount(_ context.Context, _, name string) (*v1.ServiceAccount, error) {
	if sa := a[name]; sa != nil {
		return sa, nil
	}
	return nil, apierrors.NewNotFound(v1.Resource("serviceaccounts"), name)
}

// TestServiceAccountValidation tests the checks of a pod's account and secrets,
// made after all plug-ins have changed the pod.
func TestServiceAccountValidation(t *testing.T) {
	strict := &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "strict", Annotations: map[string]string{onlyMountable: "true"}},
		Secrets: []v1.ObjectReference{{Name: "mine"}}, ImagePullSecrets: []v1.LocalObjectReference{{Name: "pull"}}}
	p := made(t, &Environment{Accounts: accounts{"default": {ObjectMeta: metav1.ObjectMeta{Name: "default"}}, "strict": strict}}, "ServiceAccount")
	env := func(secret string) []v1.EnvVar {
		return []v1.EnvVar{{Name: "E", ValueFrom: &v1.EnvVarSource{SecretKeyRef: &v1.SecretKeySelector{LocalObjectReference: v1.LocalObjectReference{Name: secret}}}}}
	}
	from := func(secret string) []v1.EnvFromSource {
		return []v1.EnvFromSource{{SecretRef: &v1.SecretEnvSource{LocalObjectReference: v1.LocalObjectReference{Name: secret}}}}
	}
	volume := func(secret string) v1.Volume {
		return v1.Volume{Name: "v", VolumeSource: v1.VolumeSource{Secret: &v1.SecretVolumeSource{SecretName: secret}}}
	}
	projected := func(s v1.VolumeProjection) v1.Volume {
		return v1.Volume{Name: "v", VolumeSource: v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{Sources: []v1.VolumeProjection{s}}}}
	}
	mirror := map[string]string{mirrorAnnotation: "x"}
	const not = "is not allowed because service account strict does not reference that"
	for _, c := range []struct {
		name        string
		annotations map[string]string
		spec        v1.PodSpec
		added       bool // by the subresource ephemeralcontainers
		want        string
	}{
		{"an account", nil, v1.PodSpec{ServiceAccountName: "default", Volumes: []v1.Volume{volume("any")}}, false, ""},
		{"none", nil, v1.PodSpec{}, false, "no service account specified for pod ns/o"},
		{"one that does not exist", nil, v1.PodSpec{ServiceAccountName: "gone"}, false, `error looking up service account ns/gone: serviceaccounts "gone" not found`},
		{"a mirror pod", mirror, v1.PodSpec{}, false, ""},
		{"a mirror pod's account", mirror, v1.PodSpec{ServiceAccountName: "default"}, false, "a mirror pod may not reference service accounts"},
		{"a mirror pod's secret", mirror, v1.PodSpec{Volumes: []v1.Volume{volume("any")}}, false, "a mirror pod may not reference secrets"},
		{"a mirror pod's secret in its environment", mirror, v1.PodSpec{Containers: []v1.Container{{EnvFrom: from("any")}}}, false, "a mirror pod may not reference secrets"},
		{"a mirror pod's pull secret", mirror, v1.PodSpec{ImagePullSecrets: []v1.LocalObjectReference{{Name: "any"}}}, false, "a mirror pod may not reference secrets"},
		{"a mirror pod's token", mirror, v1.PodSpec{Volumes: []v1.Volume{projected(v1.VolumeProjection{ServiceAccountToken: &v1.ServiceAccountTokenProjection{}})}}, false, "a mirror pod may not use ServiceAccountToken volume projections"},

		{"mountable", nil, v1.PodSpec{ServiceAccountName: "strict", Volumes: []v1.Volume{volume("mine")}, Containers: []v1.Container{{Env: env("mine"), EnvFrom: from("mine")}}, ImagePullSecrets: []v1.LocalObjectReference{{Name: "pull"}}}, false, ""},
		{"another volume", nil, v1.PodSpec{ServiceAccountName: "strict", Volumes: []v1.Volume{volume("other")}}, false, not + " secret"},
		{"another projected volume", nil, v1.PodSpec{ServiceAccountName: "strict", Volumes: []v1.Volume{projected(v1.VolumeProjection{Secret: &v1.SecretProjection{LocalObjectReference: v1.LocalObjectReference{Name: "other"}}})}}, false, not + " secret"},
		{"another variable", nil, v1.PodSpec{ServiceAccountName: "strict", Containers: []v1.Container{{Name: "c", Env: env("other")}}}, false, `container c with envVar E referencing secret.secretName="other" ` + not + " secret"},
		{"other variables", nil, v1.PodSpec{ServiceAccountName: "strict", Containers: []v1.Container{{Name: "c", EnvFrom: from("other")}}}, false, `container c with envFrom referencing secret.secretName="other" ` + not + " secret"},
		{"another variable at first", nil, v1.PodSpec{ServiceAccountName: "strict", InitContainers: []v1.Container{{Name: "c", Env: env("other")}}}, false, `init container c with envVar E`},
		{"another variable later", nil, v1.PodSpec{ServiceAccountName: "strict", EphemeralContainers: []v1.EphemeralContainer{{EphemeralContainerCommon: v1.EphemeralContainerCommon{Name: "c", EnvFrom: from("other")}}}}, true, `ephemeral container c with envFrom`},
		{"another pull secret", nil, v1.PodSpec{ServiceAccountName: "strict", ImagePullSecrets: []v1.LocalObjectReference{{Name: "other"}}}, false, `imagePullSecrets[0].name="other" ` + not + " imagePullSecret"},
	} {
		pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "o", Annotations: c.annotations}, Spec: c.spec}
		op, sub := admission.Create, ""
		if c.added {
			op, sub = admission.Update, "ephemeralcontainers"
		}
		err := p.(admission.ValidationInterface).Validate(t.Context(), request(v1.SchemeGroupVersion.WithResource("pods"), sub, op, pod, nil), nil)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
