package admission

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/utils/ptr"
)

// ServiceAccounts waits for and reads service accounts.
type ServiceAccounts interface {
	// ServiceAccount returns the account as it is now; where a default one is
	// only being made, it waits for it a moment.
	ServiceAccount(ctx context.Context, namespace, name string) (*v1.ServiceAccount, error)
}

// serviceAccount gives pods an account, its pull secrets and its token.
type serviceAccount struct{ accounts ServiceAccounts }

func newServiceAccount(e *Environment) *plain {
	s := serviceAccount{e.Accounts}
	return both(onObject(s.admit), onObject(s.validate, "", "ephemeralcontainers"), admission.Create, admission.Update)
}

const (
	mirrorAnnotation = "kubernetes.io/config.mirror"
	tokenPath        = "/var/run/secrets/kubernetes.io/serviceaccount"
	tokenLife        = 3607 // seconds, upstream's
	// onlyMountable is the annotation of an account whose pods may refer to the secrets
	// in its list alone.
	onlyMountable = "kubernetes.io/enforce-mountable-secrets"
)

func (s serviceAccount) admit(ctx context.Context, a admission.Attributes, pod *v1.Pod) error {
	if a.GetOperation() != admission.Create {
		return nil
	}
	if _, mirror := pod.Annotations[mirrorAnnotation]; mirror {
		return nil // its spec is its node's, and stays as it is
	}
	if pod.Spec.ServiceAccountName == "" {
		pod.Spec.ServiceAccountName = "default"
	}
	sa, err := s.accounts.ServiceAccount(ctx, a.GetNamespace(), pod.Spec.ServiceAccountName)
	if err != nil {
		return admission.NewForbidden(a, fmt.Errorf("error looking up service account %s/%s: %w", a.GetNamespace(), pod.Spec.ServiceAccountName, err))
	}
	mount := true
	if sa.AutomountServiceAccountToken != nil {
		mount = *sa.AutomountServiceAccountToken
	}
	if pod.Spec.AutomountServiceAccountToken != nil {
		mount = *pod.Spec.AutomountServiceAccountToken
	}
	if mount {
		mountToken(pod)
	}
	if len(pod.Spec.ImagePullSecrets) == 0 {
		for _, r := range sa.ImagePullSecrets {
			pod.Spec.ImagePullSecrets = append(pod.Spec.ImagePullSecrets, v1.LocalObjectReference{Name: r.Name})
		}
	}
	pod.Spec.DeprecatedServiceAccount = pod.Spec.ServiceAccountName
	return nil
}

// validate checks what others may have made of the pod.
func (s serviceAccount) validate(ctx context.Context, a admission.Attributes, pod *v1.Pod) error {
	added := a.GetOperation() == admission.Update
	if added != (a.GetSubresource() == "ephemeralcontainers") {
		return nil
	}
	refused := func(err error) error { return admission.NewForbidden(a, err) }
	name := pod.Spec.ServiceAccountName
	if _, mirror := pod.Annotations[mirrorAnnotation]; mirror && !added {
		switch {
		case name != "":
			return refused(errors.New("a mirror pod may not reference service accounts"))
		case len(secretsOf(pod)) > 0 || len(pod.Spec.ImagePullSecrets) > 0:
			return refused(errors.New("a mirror pod may not reference secrets"))
		case slices.ContainsFunc(pod.Spec.Volumes, hasToken):
			return refused(errors.New("a mirror pod may not use ServiceAccountToken volume projections"))
		}
		return nil
	}
	if name == "" && !added {
		return refused(fmt.Errorf("no service account specified for pod %s/%s", a.GetNamespace(), pod.Name))
	}
	if name == "" {
		return nil
	}
	sa, err := s.accounts.ServiceAccount(ctx, a.GetNamespace(), name)
	if err != nil {
		return refused(fmt.Errorf("error looking up service account %s/%s: %w", a.GetNamespace(), name, err))
	}
	if only, _ := strconv.ParseBool(sa.Annotations[onlyMountable]); !only {
		return nil
	}
	mountable := func(secret string) bool {
		return slices.ContainsFunc(sa.Secrets, func(r v1.ObjectReference) bool { return r.Name == secret })
	}
	for _, ref := range secretsOf(pod) {
		if !mountable(ref.secret) {
			return refused(fmt.Errorf("%s referencing secret.secretName=%q is not allowed because service account %s does not reference that secret", ref.by, ref.secret, sa.Name))
		}
	}
	for i, p := range pod.Spec.ImagePullSecrets {
		if !slices.ContainsFunc(sa.ImagePullSecrets, func(r v1.LocalObjectReference) bool { return r.Name == p.Name }) {
			return refused(fmt.Errorf("imagePullSecrets[%d].name=%q is not allowed because service account %s does not reference that imagePullSecret", i, p.Name, sa.Name))
		}
	}
	return nil
}

func hasToken(v v1.Volume) bool {
	return v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(p v1.VolumeProjection) bool { return p.ServiceAccountToken != nil })
}

// secretRef is a secret that a pod refers to, and the part of the pod that
// does.
type secretRef struct{ by, secret string }

// secretsOf returns the secrets in the pod's volumes and its containers' environments.
// Those in projected volumes are among them, which upstream does not look at.
func secretsOf(pod *v1.Pod) (out []secretRef) {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		by := "volume " + v.Name
		if v.Secret != nil {
			out = append(out, secretRef{by, v.Secret.SecretName})
		}
		if v.Projected != nil {
			for _, p := range v.Projected.Sources {
				if p.Secret != nil {
					out = append(out, secretRef{by, p.Secret.Name})
				}
			}
		}
	}
	container := func(kind, name string, env []v1.EnvVar, from []v1.EnvFromSource) {
		for _, e := range env {
			if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
				out = append(out, secretRef{kind + " " + name + " with envVar " + e.Name, e.ValueFrom.SecretKeyRef.Name})
			}
		}
		for _, f := range from {
			if f.SecretRef != nil {
				out = append(out, secretRef{kind + " " + name + " with envFrom", f.SecretRef.Name})
			}
		}
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		container("init container", c.Name, c.Env, c.EnvFrom)
	}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		container("container", c.Name, c.Env, c.EnvFrom)
	}
	for i := range pod.Spec.EphemeralContainers {
		c := &pod.Spec.EphemeralContainers[i]
		container("ephemeral container", c.Name, c.Env, c.EnvFrom)
	}
	return out
}

// mountToken adds the volume with the token, the CA and the namespace, where a
// container has nothing at its path.
func mountToken(pod *v1.Pod) {
	name := ""
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; len(v.Name) > 16 && v.Name[:16] == "kube-api-access-" {
			name = v.Name
		}
	}
	add := name == ""
	if add {
		name = "kube-api-access-" + rand.String(5)
	}
	needed := false
	each := func(cs []v1.Container) {
		for i := range cs {
			if slices.ContainsFunc(cs[i].VolumeMounts, func(m v1.VolumeMount) bool { return m.MountPath == tokenPath }) {
				continue
			}
			cs[i].VolumeMounts = append(cs[i].VolumeMounts, v1.VolumeMount{Name: name, ReadOnly: true, MountPath: tokenPath})
			needed = true
		}
	}
	each(pod.Spec.InitContainers)
	each(pod.Spec.Containers)
	if !needed || !add {
		return
	}
	pod.Spec.Volumes = append(pod.Spec.Volumes, v1.Volume{Name: name, VolumeSource: v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{
		DefaultMode: ptr.To(v1.ProjectedVolumeSourceDefaultMode),
		Sources: []v1.VolumeProjection{
			{ServiceAccountToken: &v1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: ptr.To[int64](tokenLife)}},
			{ConfigMap: &v1.ConfigMapProjection{LocalObjectReference: v1.LocalObjectReference{Name: "kube-root-ca.crt"}, Items: []v1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}}}},
			{DownwardAPI: &v1.DownwardAPIProjection{Items: []v1.DownwardAPIVolumeFile{{Path: "namespace", FieldRef: &v1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"}}}}},
		}}}})
}
