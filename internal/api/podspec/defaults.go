package podspec

import (
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
)

// SetDefaultsPodTemplate fills in the absent fields of a pod template.
func SetDefaultsPodTemplate(t *v1.PodTemplateSpec) { SetDefaultsPodSpec(&t.Spec) }

// SetDefaultsPod fills in the absent fields of a pod: those of its spec, and
// those that a template leaves open until a pod is made of it.
func SetDefaultsPod(p *v1.Pod) {
	SetDefaultsPodSpec(&p.Spec)
	s := &p.Spec
	for _, list := range [][]v1.Container{s.InitContainers, s.Containers} {
		for i := range list {
			requestLimits(&list[i].Resources)
			if s.HostNetwork {
				hostPorts(list[i].Ports)
			}
		}
	}
	setPodResources(p)
	setPodIPs(&p.Status)
	absent(&s.EnableServiceLinks, true)
}

// setPodIPs has the list follow the older single field, which is the one that
// counts where the two differ.
func setPodIPs(s *v1.PodStatus) {
	switch {
	case s.PodIP == "" && len(s.PodIPs) > 0:
		s.PodIP = s.PodIPs[0].IP
	case s.PodIP != "" && (len(s.PodIPs) == 0 || s.PodIPs[0].IP != s.PodIP):
		s.PodIPs = []v1.PodIP{{IP: s.PodIP}}
	}
}

// setPodResources completes the requests of a pod with resources of its own:
// from the sum of its containers' requests, else from its limits.
func setPodResources(p *v1.Pod) {
	r := p.Spec.Resources
	if r == nil || len(r.Requests)+len(r.Limits) == 0 {
		return
	}
	fill := func(to *v1.ResourceList, from v1.ResourceList, huge bool) {
		for name, q := range from {
			if _, ok := (*to)[name]; ok || hugePages(name) != huge || !resourcehelper.IsSupportedPodLevelResource(name) {
				continue
			}
			if *to == nil {
				*to = v1.ResourceList{}
			}
			(*to)[name] = q.DeepCopy()
		}
	}
	// Huge pages cannot be promised twice: they have limits, and requests like them.
	fill(&r.Limits, resourcehelper.AggregateContainerLimits(p, resourcehelper.PodResourcesOptions{}), true)
	fill(&r.Requests, resourcehelper.AggregateContainerRequests(p, resourcehelper.PodResourcesOptions{}), false)
	requestLimits(r)
}

// requestLimits asks for as much as is allowed, where nothing was asked for.
func requestLimits(r *v1.ResourceRequirements) {
	for name, limit := range r.Limits {
		if _, ok := r.Requests[name]; !ok {
			if r.Requests == nil {
				r.Requests = v1.ResourceList{}
			}
			r.Requests[name] = limit.DeepCopy()
		}
	}
}

func hostPorts(ports []v1.ContainerPort) {
	for i := range ports {
		if ports[i].HostPort == 0 {
			ports[i].HostPort = ports[i].ContainerPort
		}
	}
}

// SetDefaultsPodSpec fills in the absent fields of a pod's spec.
func SetDefaultsPodSpec(s *v1.PodSpec) {
	// Fields of alpha features, which are off as by upstream's default, are dropped.
	s.SchedulingGroup, s.EvictionResponders = nil, nil

	// Two names of one field: the old one follows the new one.
	if s.ServiceAccountName == "" {
		s.ServiceAccountName = s.DeprecatedServiceAccount
	}
	s.DeprecatedServiceAccount = s.ServiceAccountName

	zero(&s.DNSPolicy, v1.DNSClusterFirst)
	zero(&s.RestartPolicy, v1.RestartPolicyAlways)
	zero(&s.SchedulerName, v1.DefaultSchedulerName)
	absent(&s.TerminationGracePeriodSeconds, int64(v1.DefaultTerminationGracePeriodSeconds))
	absent(&s.SecurityContext, v1.PodSecurityContext{})
	for i := range s.Volumes {
		SetDefaultsVolume(&s.Volumes[i])
	}
	for i := range s.InitContainers {
		setContainer(&s.InitContainers[i])
	}
	for i := range s.Containers {
		setContainer(&s.Containers[i])
	}
	for i := range s.EphemeralContainers {
		c := v1.Container(s.EphemeralContainers[i].EphemeralContainerCommon)
		setContainer(&c)
		s.EphemeralContainers[i].EphemeralContainerCommon = v1.EphemeralContainerCommon(c)
	}
	roundUp(s.Overhead)
	if s.Resources != nil {
		roundUp(s.Resources.Limits)
		roundUp(s.Resources.Requests)
	}
}

func setContainer(c *v1.Container) {
	zero(&c.ImagePullPolicy, pullPolicy(c.Image))
	zero(&c.TerminationMessagePath, v1.TerminationMessagePathDefault)
	zero(&c.TerminationMessagePolicy, v1.TerminationMessageReadFile)
	for i := range c.Ports {
		zero(&c.Ports[i].Protocol, v1.ProtocolTCP)
	}
	for i := range c.Env {
		from := c.Env[i].ValueFrom
		if from == nil {
			continue
		}
		if from.FieldRef != nil {
			zero(&from.FieldRef.APIVersion, "v1")
		}
		if from.FileKeyRef != nil {
			absent(&from.FileKeyRef.Optional, false)
		}
	}
	roundUp(c.Resources.Limits)
	roundUp(c.Resources.Requests)
	for _, p := range []*v1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
		setProbe(p)
	}
	if c.Lifecycle != nil {
		for _, h := range []*v1.LifecycleHandler{c.Lifecycle.PostStart, c.Lifecycle.PreStop} {
			if h != nil {
				setHTTPGet(h.HTTPGet)
			}
		}
	}
}

func setProbe(p *v1.Probe) {
	if p == nil {
		return
	}
	zero(&p.TimeoutSeconds, 1)
	zero(&p.PeriodSeconds, 10)
	zero(&p.SuccessThreshold, 1)
	zero(&p.FailureThreshold, 3)
	setHTTPGet(p.HTTPGet)
	if p.GRPC != nil {
		absent(&p.GRPC.Service, "")
	}
}

func setHTTPGet(h *v1.HTTPGetAction) {
	if h == nil {
		return
	}
	zero(&h.Path, "/")
	zero(&h.Scheme, v1.URISchemeHTTP)
}

// pullPolicy returns the default policy: Always for the tag latest, whose image
// may change.
func pullPolicy(image string) v1.PullPolicy {
	if image == "" {
		return v1.PullIfNotPresent
	}
	name, _, digested := strings.Cut(image, "@")
	_, tag, tagged := strings.Cut(name[strings.LastIndex(name, "/")+1:], ":")
	if tag == "latest" || !tagged && !digested {
		return v1.PullAlways
	}
	return v1.PullIfNotPresent
}

// SetDefaultsVolume fills in a volume: an empty directory if it has no source.
func SetDefaultsVolume(v *v1.Volume) {
	s := &v.VolumeSource
	if *s == (v1.VolumeSource{}) {
		s.EmptyDir = &v1.EmptyDirVolumeSource{}
	}
	switch {
	case s.Secret != nil:
		absent(&s.Secret.DefaultMode, v1.SecretVolumeSourceDefaultMode)
	case s.ConfigMap != nil:
		absent(&s.ConfigMap.DefaultMode, v1.ConfigMapVolumeSourceDefaultMode)
	case s.DownwardAPI != nil:
		absent(&s.DownwardAPI.DefaultMode, v1.DownwardAPIVolumeSourceDefaultMode)
		setFieldRefs(s.DownwardAPI.Items)
	case s.Projected != nil:
		absent(&s.Projected.DefaultMode, v1.ProjectedVolumeSourceDefaultMode)
		for i := range s.Projected.Sources {
			src := &s.Projected.Sources[i]
			if src.ServiceAccountToken != nil {
				absent(&src.ServiceAccountToken.ExpirationSeconds, int64(60*60))
			}
			if src.DownwardAPI != nil {
				setFieldRefs(src.DownwardAPI.Items)
			}
		}
	case s.HostPath != nil:
		absent(&s.HostPath.Type, v1.HostPathUnset)
	case s.ISCSI != nil:
		setISCSI(&s.ISCSI.ISCSIInterface)
	case s.RBD != nil:
		setRBD(&s.RBD.RBDPool, &s.RBD.RadosUser, &s.RBD.Keyring)
	case s.AzureDisk != nil:
		setAzureDisk(s.AzureDisk)
	case s.ScaleIO != nil:
		setScaleIO(&s.ScaleIO.StorageMode, &s.ScaleIO.FSType)
	case s.Ephemeral != nil && s.Ephemeral.VolumeClaimTemplate != nil:
		absent(&s.Ephemeral.VolumeClaimTemplate.Spec.VolumeMode, v1.PersistentVolumeFilesystem)
	case s.Image != nil:
		zero(&s.Image.PullPolicy, pullPolicy(s.Image.Reference))
	}
}

// SetDefaultsPersistentVolumeSource fills in the source of a PersistentVolume.
func SetDefaultsPersistentVolumeSource(s *v1.PersistentVolumeSource) {
	switch {
	case s.HostPath != nil:
		absent(&s.HostPath.Type, v1.HostPathUnset)
	case s.ISCSI != nil:
		setISCSI(&s.ISCSI.ISCSIInterface)
	case s.RBD != nil:
		setRBD(&s.RBD.RBDPool, &s.RBD.RadosUser, &s.RBD.Keyring)
	case s.AzureDisk != nil:
		setAzureDisk(s.AzureDisk)
	case s.ScaleIO != nil:
		setScaleIO(&s.ScaleIO.StorageMode, &s.ScaleIO.FSType)
	}
}

func setISCSI(transport *string) { zero(transport, "default") }

func setRBD(pool, user, keyring *string) {
	zero(pool, "rbd")
	zero(user, "admin")
	zero(keyring, "/etc/ceph/keyring")
}

func setAzureDisk(d *v1.AzureDiskVolumeSource) {
	absent(&d.CachingMode, v1.AzureDataDiskCachingReadWrite)
	absent(&d.Kind, v1.AzureSharedBlobDisk)
	absent(&d.FSType, "ext4")
	absent(&d.ReadOnly, false)
}

func setScaleIO(mode, fsType *string) {
	zero(mode, "ThinProvisioned")
	zero(fsType, "xfs")
}

func setFieldRefs(files []v1.DownwardAPIVolumeFile) {
	for i := range files {
		if files[i].FieldRef != nil {
			zero(&files[i].FieldRef.APIVersion, "v1")
		}
	}
}

// roundUp rounds the quantities of list up to thousandths.
func roundUp(list v1.ResourceList) {
	for name, q := range list {
		if q.RoundUp(resource.Milli) {
			continue
		}
		list[name] = q
	}
}

func zero[T comparable](field *T, value T) {
	var none T
	if *field == none {
		*field = value
	}
}

func absent[T any](field **T, value T) {
	if *field == nil {
		*field = &value
	}
}
