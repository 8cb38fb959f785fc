package podspec

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/storage/ephemeral"
)

// Refs are the names of the objects of its namespace that a pod uses.
type Refs struct{ Secrets, ConfigMaps, Claims []string }

// References finds them.
func References(p *corev1.Pod) *Refs {
	r := &Refs{}
	secret := func(s *corev1.LocalObjectReference) {
		if s != nil {
			r.Secrets = append(r.Secrets, s.Name)
		}
	}
	for i := range p.Spec.ImagePullSecrets {
		secret(&p.Spec.ImagePullSecrets[i])
	}
	for i := range p.Spec.InitContainers {
		r.environment(&p.Spec.InitContainers[i])
	}
	for i := range p.Spec.Containers {
		r.environment(&p.Spec.Containers[i])
	}
	for i := range p.Spec.EphemeralContainers {
		c := corev1.Container(p.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		r.environment(&c)
	}
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		if name := ClaimName(p, v); name != "" {
			r.Claims = append(r.Claims, name)
		}
		switch {
		case v.Secret != nil:
			r.Secrets = append(r.Secrets, v.Secret.SecretName)
		case v.ConfigMap != nil:
			r.ConfigMaps = append(r.ConfigMaps, v.ConfigMap.Name)
		case v.CSI != nil:
			secret(v.CSI.NodePublishSecretRef)
		case v.FlexVolume != nil:
			secret(v.FlexVolume.SecretRef)
		case v.ISCSI != nil:
			secret(v.ISCSI.SecretRef)
		case v.CephFS != nil:
			secret(v.CephFS.SecretRef)
		case v.RBD != nil:
			secret(v.RBD.SecretRef)
		case v.Cinder != nil:
			secret(v.Cinder.SecretRef)
		case v.ScaleIO != nil:
			secret(v.ScaleIO.SecretRef)
		case v.StorageOS != nil:
			secret(v.StorageOS.SecretRef)
		case v.AzureFile != nil:
			r.Secrets = append(r.Secrets, v.AzureFile.SecretName)
		case v.Projected != nil:
			for j := range v.Projected.Sources {
				s := &v.Projected.Sources[j]
				if s.Secret != nil {
					r.Secrets = append(r.Secrets, s.Secret.Name)
				}
				if s.ConfigMap != nil {
					r.ConfigMaps = append(r.ConfigMaps, s.ConfigMap.Name)
				}
			}
		}
	}
	return r
}

func (r *Refs) environment(c *corev1.Container) {
	for i := range c.EnvFrom {
		if s := c.EnvFrom[i].SecretRef; s != nil {
			r.Secrets = append(r.Secrets, s.Name)
		}
		if m := c.EnvFrom[i].ConfigMapRef; m != nil {
			r.ConfigMaps = append(r.ConfigMaps, m.Name)
		}
	}
	for i := range c.Env {
		from := c.Env[i].ValueFrom
		if from == nil {
			continue
		}
		if from.SecretKeyRef != nil {
			r.Secrets = append(r.Secrets, from.SecretKeyRef.Name)
		}
		if from.ConfigMapKeyRef != nil {
			r.ConfigMaps = append(r.ConfigMaps, from.ConfigMapKeyRef.Name)
		}
	}
}

// APIReference returns the resource of an object of the API that a pod uses, and by what, as upstream
// names both: "" if it uses none. The error is that of a kind of volume that is not known.
func APIReference(p *corev1.Pod) (string, error) {
	r := References(p)
	switch {
	case p.Spec.ServiceAccountName != "" || p.Spec.DeprecatedServiceAccount != "":
		return "serviceaccounts", nil
	case len(r.Secrets) > 0:
		return "secrets", nil
	case len(r.ConfigMaps) > 0:
		return "configmaps", nil
	case len(p.Spec.ResourceClaims) > 0:
		return "resourceclaims", nil
	}
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		s := &v.VolumeSource
		switch {
		case s.CSI != nil:
			return "csidrivers (via CSI volumes)", nil
		case s.Glusterfs != nil:
			return "endpoints (via glusterFS volumes)", nil
		case s.PersistentVolumeClaim != nil:
			return "persistentvolumeclaims", nil
		case s.Ephemeral != nil:
			return "persistentvolumeclaims (via ephemeral volumes)", nil
		case s.Projected != nil:
			for j := range s.Projected.Sources {
				switch src := &s.Projected.Sources[j]; {
				case src.ServiceAccountToken != nil:
					return "serviceaccounts (via projected volumes)", nil
				case src.ClusterTrustBundle != nil:
					return "clustertrustbundles", nil
				case src.PodCertificate != nil:
					return "podcertificates", nil
				case src.DownwardAPI == nil:
					return "", fmt.Errorf("unknown source for projected volume %q", v.Name)
				}
			}
		case s.AWSElasticBlockStore != nil, s.AzureDisk != nil, s.CephFS != nil, s.Cinder != nil, s.DownwardAPI != nil, s.EmptyDir != nil,
			s.FC != nil, s.FlexVolume != nil, s.Flocker != nil, s.GCEPersistentDisk != nil, s.GitRepo != nil, s.HostPath != nil, s.Image != nil,
			s.ISCSI != nil, s.NFS != nil, s.PhotonPersistentDisk != nil, s.PortworxVolume != nil, s.Quobyte != nil, s.RBD != nil, s.ScaleIO != nil,
			s.StorageOS != nil, s.VsphereVolume != nil:
		default:
			return "", fmt.Errorf("unknown volume type for volume #%d", i)
		}
	}
	return "", nil
}

// ClaimName returns the name of the PersistentVolumeClaim that a pod's volume is of, the
// one that is made for it if it is ephemeral; "" if it is of none.
func ClaimName(p *corev1.Pod, v *corev1.Volume) string {
	switch {
	case v.PersistentVolumeClaim != nil:
		return v.PersistentVolumeClaim.ClaimName
	case v.Ephemeral != nil:
		return ephemeral.VolumeClaimName(p, v)
	}
	return ""
}

// ClaimKeys returns the PersistentVolumeClaims that a pod's volumes are of, as
// namespace/name.
func ClaimKeys(p *corev1.Pod) (out []string) {
	for i := range p.Spec.Volumes {
		if name := ClaimName(p, &p.Spec.Volumes[i]); name != "" {
			out = append(out, p.Namespace+"/"+name)
		}
	}
	return out
}

// ResourceClaims returns the names of the claims that the pod uses.
func ResourceClaims(p *corev1.Pod) (out []string) {
	for i := range p.Spec.ResourceClaims {
		if n := p.Spec.ResourceClaims[i].ResourceClaimName; n != nil {
			out = append(out, *n)
		}
	}
	for i := range p.Status.ResourceClaimStatuses {
		if n := p.Status.ResourceClaimStatuses[i].ResourceClaimName; n != nil {
			out = append(out, *n)
		}
	}
	if s := p.Status.ExtendedResourceClaimStatus; s != nil {
		out = append(out, s.ResourceClaimName)
	}
	return out
}

// VolumeSecrets returns the secrets that a node needs to mount the volume for a
// claim in that namespace.
func VolumeSecrets(v *corev1.PersistentVolume, namespace string) (out []corev1.SecretReference) {
	add := func(s *corev1.SecretReference) {
		if s != nil {
			ref := *s
			if ref.Namespace == "" {
				ref.Namespace = namespace
			}
			out = append(out, ref)
		}
	}
	s := &v.Spec.PersistentVolumeSource
	switch {
	case s.CSI != nil:
		for _, r := range []*corev1.SecretReference{s.CSI.NodePublishSecretRef, s.CSI.NodeStageSecretRef, s.CSI.NodeExpandSecretRef} {
			add(r)
		}
	case s.FlexVolume != nil:
		add(s.FlexVolume.SecretRef)
	case s.ISCSI != nil:
		add(s.ISCSI.SecretRef)
	case s.CephFS != nil:
		add(s.CephFS.SecretRef)
	case s.RBD != nil:
		add(s.RBD.SecretRef)
	case s.AzureFile != nil:
		ref := &corev1.SecretReference{Name: s.AzureFile.SecretName}
		if s.AzureFile.SecretNamespace != nil {
			ref.Namespace = *s.AzureFile.SecretNamespace
		}
		add(ref)
	}
	return out
}
