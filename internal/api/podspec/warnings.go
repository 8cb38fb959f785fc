package podspec

import (
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Warnings returns the warnings for a pod.
func Warnings(p *v1.Pod) []string { return warnings(&p.Spec, &p.ObjectMeta, nil) }

// TemplateWarnings returns the warnings for a pod template at fldPath.
func TemplateWarnings(t *v1.PodTemplateSpec, fldPath *field.Path) []string {
	return warnings(&t.Spec, &t.ObjectMeta, fldPath)
}

// warner gathers warnings.
type warner []string

func (w *warner) at(fldPath *field.Path, format string, args ...any) {
	*w = append(*w, fldPath.String()+": "+fmt.Sprintf(format, args...))
}

// warnings looks over a pod (with a nil path) or a template.
func warnings(s *v1.PodSpec, meta *metav1.ObjectMeta, fldPath *field.Path) []string {
	var w warner
	at := fldPath.Child("spec")
	w.nodeLabels(s, at)
	w.annotations(meta, fldPath.Child("metadata", "annotations"))
	for i := range s.Volumes {
		w.volume(&s.Volumes[i], at.Child("volumes").Index(i))
	}
	w.overlaps(s.Volumes)
	w.lists(s, at)
	w.fractions(s.Overhead, at.Child("overhead"))
	w.profiles(s, meta, fldPath)
	visitContainers(s, at, func(c *v1.Container, at *field.Path) {
		w.fractions(c.Resources.Limits, at.Child("resources", "limits"))
		w.fractions(c.Resources.Requests, at.Child("resources", "requests"))
		w.env(c.Env, at.Child("env"))
	})
	w.ports(s, at)
	if g := s.TerminationGracePeriodSeconds; g != nil && *g < 0 {
		w.at(at.Child("terminationGracePeriodSeconds"), "must be >= 0; negative values are invalid and will be treated as 1")
	}
	if a := s.Affinity; a != nil {
		if a := a.PodAffinity; a != nil {
			w.podTerms(a.RequiredDuringSchedulingIgnoredDuringExecution, a.PreferredDuringSchedulingIgnoredDuringExecution, at.Child("affinity", "podAffinity"))
		}
		if a := a.PodAntiAffinity; a != nil {
			w.podTerms(a.RequiredDuringSchedulingIgnoredDuringExecution, a.PreferredDuringSchedulingIgnoredDuringExecution, at.Child("affinity", "podAntiAffinity"))
		}
	}
	w.addresses(s, at)
	return w
}

func visitContainers(s *v1.PodSpec, at *field.Path, visit func(c *v1.Container, at *field.Path)) {
	for i := range s.InitContainers {
		visit(&s.InitContainers[i], at.Child("initContainers").Index(i))
	}
	for i := range s.Containers {
		visit(&s.Containers[i], at.Child("containers").Index(i))
	}
	for i := range s.EphemeralContainers {
		visit((*v1.Container)(&s.EphemeralContainers[i].EphemeralContainerCommon), at.Child("ephemeralContainers").Index(i))
	}
}

// DeprecatedNodeLabel returns the replacement of a deprecated node label; "" for
// all others.
func DeprecatedNodeLabel(key string) string {
	switch key {
	case "beta.kubernetes.io/arch":
		return `deprecated since v1.14; use "kubernetes.io/arch" instead`
	case "beta.kubernetes.io/os":
		return `deprecated since v1.14; use "kubernetes.io/os" instead`
	case v1.LabelFailureDomainBetaRegion:
		return `deprecated since v1.17; use "topology.kubernetes.io/region" instead`
	case v1.LabelFailureDomainBetaZone:
		return `deprecated since v1.17; use "topology.kubernetes.io/zone" instead`
	case v1.LabelInstanceType:
		return `deprecated since v1.17; use "node.kubernetes.io/instance-type" instead`
	}
	return ""
}

func (w *warner) nodeLabels(s *v1.PodSpec, at *field.Path) {
	for _, key := range sortedKeys(s.NodeSelector) {
		if msg := DeprecatedNodeLabel(key); msg != "" {
			w.at(at.Child("nodeSelector").Key(key), "%s", msg)
		}
	}
	if s.Affinity != nil && s.Affinity.NodeAffinity != nil {
		n, at := s.Affinity.NodeAffinity, at.Child("affinity", "nodeAffinity")
		if r := n.RequiredDuringSchedulingIgnoredDuringExecution; r != nil {
			for i := range r.NodeSelectorTerms {
				at := at.Child("requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms").Index(i)
				*w = append(*w, NodeTermWarnings(&r.NodeSelectorTerms[i], false, at)...)
			}
		}
		for i := range n.PreferredDuringSchedulingIgnoredDuringExecution {
			at := at.Child("preferredDuringSchedulingIgnoredDuringExecution").Index(i).Child("preference")
			*w = append(*w, NodeTermWarnings(&n.PreferredDuringSchedulingIgnoredDuringExecution[i].Preference, true, at)...)
		}
	}
	for i, t := range s.TopologySpreadConstraints {
		at := at.Child("topologySpreadConstraints").Index(i)
		if msg := DeprecatedNodeLabel(t.TopologyKey); msg != "" {
			w.at(at.Child("topologyKey"), "%s is %s", t.TopologyKey, msg)
		}
		if t.LabelSelector == nil {
			w.at(at.Child("labelSelector"), "a null labelSelector results in matching no pod")
		}
	}
}

// NodeTermWarnings returns the warnings for a term that selects nodes; those
// for its values where validation lets bad ones pass.
func NodeTermWarnings(t *v1.NodeSelectorTerm, values bool, at *field.Path) []string {
	var w warner
	for i, e := range t.MatchExpressions {
		at := at.Child("matchExpressions").Index(i)
		if msg := DeprecatedNodeLabel(e.Key); msg != "" {
			w.at(at.Child("key"), "%s is %s", e.Key, msg)
		}
		for j, v := range e.Values {
			if !values {
				break
			}
			for _, msg := range validation.IsValidLabelValue(v) {
				w.at(at.Child("values").Index(j), "%s is invalid, %s", v, msg)
			}
		}
	}
	return w
}

func (w *warner) annotations(meta *metav1.ObjectMeta, at *field.Path) {
	for _, old := range []struct{ key, message string }{
		{"scheduler.alpha.kubernetes.io/critical-pod", `non-functional in v1.16+; use the "priorityClassName" field instead`},
		{"security.alpha.kubernetes.io/sysctls", `non-functional in v1.11+; use the "sysctls" field instead`},
		{"security.alpha.kubernetes.io/unsafe-sysctls", `non-functional in v1.11+; use the "sysctls" field instead`},
	} {
		if _, ok := meta.Annotations[old.key]; ok {
			w.at(at.Key(old.key), "%s", old.message)
		}
	}
}

func (w *warner) volume(v *v1.Volume, at *field.Path) {
	for _, old := range []struct {
		used          bool
		name, message string
	}{
		{v.PhotonPersistentDisk != nil, "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"},
		{v.GitRepo != nil, "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"},
		{v.ScaleIO != nil, "scaleIO", "deprecated in v1.16, non-functional in v1.22+"},
		{v.Flocker != nil, "flocker", "deprecated in v1.22, non-functional in v1.25+"},
		{v.StorageOS != nil, "storageOS", "deprecated in v1.22, non-functional in v1.25+"},
		{v.Quobyte != nil, "quobyte", "deprecated in v1.22, non-functional in v1.25+"},
		{v.Glusterfs != nil, "glusterfs", "deprecated in v1.25, non-functional in v1.26+"},
		{v.CephFS != nil, "cephfs", "deprecated in v1.28, non-functional in v1.31+"},
		{v.RBD != nil, "rbd", "deprecated in v1.28, non-functional in v1.31+"},
	} {
		if old.used {
			w.at(at.Child(old.name), "%s", old.message)
		}
	}
	if v.Ephemeral != nil && v.Ephemeral.VolumeClaimTemplate != nil {
		*w = append(*w, ClaimWarnings(&v.Ephemeral.VolumeClaimTemplate.Spec, at.Child("ephemeral", "volumeClaimTemplate", "spec"))...)
	}
}

// ClaimWarnings returns the warnings for the spec of a claim at fldPath.
func ClaimWarnings(s *v1.PersistentVolumeClaimSpec, fldPath *field.Path) []string {
	var w warner
	w.fraction(s.Resources.Requests, v1.ResourceStorage, fldPath.Child("resources", "requests"))
	w.fraction(s.Resources.Limits, v1.ResourceStorage, fldPath.Child("resources", "limits"))
	return w
}

func (w *warner) fractions(list v1.ResourceList, at *field.Path) {
	w.fraction(list, v1.ResourceMemory, at)
	w.fraction(list, v1.ResourceEphemeralStorage, at)
}

func (w *warner) fraction(list v1.ResourceList, name v1.ResourceName, at *field.Path) {
	if q, ok := list[name]; ok && q.MilliValue()%1000 != 0 {
		w.at(at.Key(string(name)), "fractional byte value %q is invalid, must be an integer", q.String())
	}
}

// lists looks for entries that are there twice.
func (w *warner) lists(s *v1.PodSpec, at *field.Path) {
	seen := map[string]bool{}
	for i, a := range s.HostAliases {
		if seen[a.IP] {
			w.at(at.Child("hostAliases").Index(i).Child("ip"), "duplicate ip %q", a.IP)
		}
		seen[a.IP] = true
	}
	clear(seen)
	for i, r := range s.ImagePullSecrets {
		if seen[r.Name] {
			w.at(at.Child("imagePullSecrets").Index(i).Child("name"), "duplicate name %q", r.Name)
		}
		seen[r.Name] = true
	}
	for i, r := range s.ImagePullSecrets {
		if r.Name == "" {
			w.at(at.Child("imagePullSecrets").Index(i).Child("name"), "invalid empty name %q", r.Name)
		}
	}
}

// profiles warns of profiles that annotations ask for and fields do not.
func (w *warner) profiles(s *v1.PodSpec, meta *metav1.ObjectMeta, fldPath *field.Path) {
	if len(meta.Annotations) == 0 {
		return
	}
	at := fldPath.Child("metadata", "annotations")
	const seccomp = `non-functional in v1.27+; use the "seccompProfile" field instead`
	if _, ok := meta.Annotations[v1.SeccompPodAnnotationKey]; ok && (s.SecurityContext == nil || s.SecurityContext.SeccompProfile == nil) {
		w.at(at.Key(v1.SeccompPodAnnotationKey), seccomp)
	}
	var pod *v1.AppArmorProfile
	if s.SecurityContext != nil {
		pod = s.SecurityContext.AppArmorProfile
	}
	visitContainers(s, nil, func(c *v1.Container, _ *field.Path) {
		sc := c.SecurityContext
		if key := v1.SeccompContainerAnnotationKeyPrefix + c.Name; sc == nil || sc.SeccompProfile == nil {
			if _, ok := meta.Annotations[key]; ok {
				w.at(at.Key(key), seccomp)
			}
		}
		key := v1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix + c.Name
		if value, ok := meta.Annotations[key]; ok && (sc == nil || sc.AppArmorProfile == nil) && !sameAppArmor(pod, value) {
			w.at(at.Key(key), `deprecated since v1.30; use the "appArmorProfile" field instead`)
		}
	})
}

// sameAppArmor reports whether an annotation asks for the profile that is set.
func sameAppArmor(p *v1.AppArmorProfile, annotation string) bool {
	if p == nil {
		return false
	}
	switch annotation {
	case v1.DeprecatedAppArmorBetaProfileNameUnconfined:
		return p.Type == v1.AppArmorProfileTypeUnconfined
	case v1.DeprecatedAppArmorBetaProfileRuntimeDefault:
		return p.Type == v1.AppArmorProfileTypeRuntimeDefault
	default:
		local, ok := strings.CutPrefix(annotation, v1.DeprecatedAppArmorBetaProfileNamePrefix)
		return ok && p.Type == v1.AppArmorProfileTypeLocalhost && p.LocalhostProfile != nil && *p.LocalhostProfile == local
	}
}

// env warns of a variable that is set twice, unless the second is made of the
// first.
func (w *warner) env(list []v1.EnvVar, at *field.Path) {
	if len(list) < 2 {
		return
	}
	seen := map[string]bool{}
	for i, e := range list {
		ref := "$(" + e.Name + ")"
		if seen[e.Name] && (e.ValueFrom != nil || e.Value == ref || !strings.Contains(e.Value, ref)) {
			w.at(at.Index(i), "hides previous definition of %q, which may be dropped when using apply", e.Name)
		}
		seen[e.Name] = true
	}
}

func (w *warner) ports(s *v1.PodSpec, at *field.Path) {
	type placed struct {
		at   *field.Path
		port v1.ContainerPort
	}
	all := map[string][]placed{}
	visitContainers(s, at, func(c *v1.Container, at *field.Path) {
		for i, p := range c.Ports {
			at := at.Child("ports").Index(i)
			if p.HostIP != "" && p.HostPort == 0 {
				// Upstream prints its internal type, whose fields these are.
				w.at(at, "hostIP set without hostPort: {Name:%s HostPort:%d ContainerPort:%d Protocol:%s HostIP:%s}",
					p.Name, p.HostPort, p.ContainerPort, p.Protocol, p.HostIP)
			}
			key := fmt.Sprintf("%d/%s", p.ContainerPort, p.Protocol)
			for _, o := range all[key] {
				switch same := p.HostPort == o.port.HostPort; {
				case same && p.HostIP == o.port.HostIP:
					w.at(at, "duplicate port definition with %s", o.at)
				case p.HostPort == 0 || o.port.HostPort == 0:
					w.at(at, "overlapping port definition with %s", o.at)
				case same && (p.HostIP == "") != (o.port.HostIP == ""):
					w.at(at, "dangerously ambiguous port definition with %s", o.at)
				}
			}
			all[key] = append(all[key], placed{at, p})
		}
	})
	named := map[string]*field.Path{}
	visitNamed := func(c *v1.Container, at *field.Path) {
		for i, p := range c.Ports {
			if p.Name == "" {
				continue
			}
			at := at.Child("ports").Index(i)
			if o := named[p.Name]; o != nil {
				w.at(at, "duplicate port name %q with %s, services and probes that select ports by name will use %s", p.Name, o, o)
			} else {
				named[p.Name] = at
			}
		}
	}
	for i := range s.Containers {
		visitNamed(&s.Containers[i], at.Child("containers").Index(i))
	}
	for i := range s.InitContainers {
		if c := &s.InitContainers[i]; c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways {
			visitNamed(c, at.Child("initContainers").Index(i))
		}
	}
}

func (w *warner) podTerms(required []v1.PodAffinityTerm, preferred []v1.WeightedPodAffinityTerm, at *field.Path) {
	const none = "a null labelSelector results in matching no pod"
	for i := range required {
		if required[i].LabelSelector == nil {
			w.at(at.Child("requiredDuringSchedulingIgnoredDuringExecution").Index(i).Child("labelSelector"), none)
		}
	}
	for i := range preferred {
		if preferred[i].PodAffinityTerm.LabelSelector == nil {
			w.at(at.Child("preferredDuringSchedulingIgnoredDuringExecution").Index(i).Child("podAffinityTerm", "labelSelector"), none)
		}
	}
}

// addresses warns of addresses in forms that not all parsers agree about.
func (w *warner) addresses(s *v1.PodSpec, at *field.Path) {
	if s.DNSConfig != nil {
		for i, ip := range s.DNSConfig.Nameservers {
			*w = append(*w, validation.GetWarningsForIP(at.Child("dnsConfig", "nameservers").Index(i), ip)...)
		}
	}
	for i := range s.HostAliases {
		*w = append(*w, validation.GetWarningsForIP(at.Child("hostAliases").Index(i).Child("ip"), s.HostAliases[i].IP)...)
	}
}

// file is a path below a volume, and what puts it there where that is not the
// only source.
type file struct{ path, source string }

func (f file) String() string {
	if f.source == "" {
		return fmt.Sprintf("%q", f.path)
	}
	return fmt.Sprintf("%q (%s)", f.path, f.source)
}

// overlaps warns of files of a volume that hide one another.
func (w *warner) overlaps(volumes []v1.Volume) {
	for i := range volumes {
		v := &volumes[i]
		check := func(kind string, files []file) {
			for i, f := range files {
				for _, o := range files[:i] {
					if f.path != "" && o.path != "" && (strings.HasPrefix(f.path+"/", o.path+"/") || strings.HasPrefix(o.path+"/", f.path+"/")) {
						*w = append(*w, fmt.Sprintf("volume %q (%s): overlapping paths: %s with %s", v.Name, kind, f, o))
					}
				}
			}
		}
		switch {
		case v.ConfigMap != nil:
			check(fmt.Sprintf("ConfigMap %q", v.ConfigMap.Name), keyFiles(v.ConfigMap.Items, ""))
		case v.Secret != nil:
			check(fmt.Sprintf("Secret %q", v.Secret.SecretName), keyFiles(v.Secret.Items, ""))
		case v.DownwardAPI != nil:
			check("DownwardAPI", downwardFiles(v.DownwardAPI.Items, ""))
		case v.Projected != nil:
			var files []file
			for j := range v.Projected.Sources {
				p := &v.Projected.Sources[j]
				if *p == (v1.VolumeProjection{}) {
					*w = append(*w, fmt.Sprintf("volume %q (Projected) has no sources provided", v.Name))
				}
				files = append(files, projectedFiles(p)...)
			}
			check("Projected", files)
		}
	}
}

func projectedFiles(p *v1.VolumeProjection) []file {
	switch {
	case p.ConfigMap != nil:
		return keyFiles(p.ConfigMap.Items, fmt.Sprintf("ConfigMap %q", p.ConfigMap.Name))
	case p.Secret != nil:
		return keyFiles(p.Secret.Items, fmt.Sprintf("Secret %q", p.Secret.Name))
	case p.DownwardAPI != nil:
		return downwardFiles(p.DownwardAPI.Items, "DownwardAPI")
	case p.ServiceAccountToken != nil:
		return []file{clean(p.ServiceAccountToken.Path, "ServiceAccountToken")}
	case p.ClusterTrustBundle != nil:
		name := p.ClusterTrustBundle.Name
		if name == nil {
			name = p.ClusterTrustBundle.SignerName
		}
		if name == nil {
			name = new(string)
		}
		return []file{clean(p.ClusterTrustBundle.Path, fmt.Sprintf("ClusterTrustBundle %q", *name))}
	case p.PodCertificate != nil:
		c := p.PodCertificate
		var out []file
		for _, f := range []file{
			{c.CertificateChainPath, "PodCertificate chain"}, {c.KeyPath, "PodCertificate key"}, {c.CredentialBundlePath, "PodCertificate credential bundle"},
		} {
			if f.path != "" {
				out = append(out, clean(f.path, f.source))
			}
		}
		return out
	}
	return nil
}

func clean(path, source string) file { return file{strings.TrimRight(path, "/"), source} }

func keyFiles(items []v1.KeyToPath, source string) []file {
	out := make([]file, len(items))
	for i := range items {
		out[i] = clean(items[i].Path, source)
	}
	return out
}

func downwardFiles(items []v1.DownwardAPIVolumeFile, source string) []file {
	out := make([]file, len(items))
	for i := range items {
		out[i] = clean(items[i].Path, source)
	}
	return out
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
