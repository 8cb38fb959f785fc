package convert

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/node/downward"
	"keelson.dev/keelson/internal/node/podspec"
)

// environment returns the container's variables, later ones over earlier ones:
// services, envFrom, env.
func (c *Converter) environment(ctx context.Context, r *Run) ([]*runtimeapi.KeyValue, error) {
	pod := r.Pod
	values := map[string]string{}
	services, err := c.serviceEnv(pod)
	if err != nil {
		return nil, err
	}
	maps.Copy(values, services)
	for i := range r.Container.EnvFrom {
		f := &r.Container.EnvFrom[i]
		switch {
		case f.ConfigMapRef != nil:
			cm, err := c.Sources.ConfigMap(ctx, pod.Namespace, f.ConfigMapRef.Name)
			if err != nil {
				if apierrors.IsNotFound(err) && ptr.Deref(f.ConfigMapRef.Optional, false) {
					continue
				}
				return nil, err
			}
			for k, v := range cm.Data {
				values[f.Prefix+k] = v
			}
		case f.SecretRef != nil:
			s, err := c.Sources.Secret(ctx, pod.Namespace, f.SecretRef.Name)
			if err != nil {
				if apierrors.IsNotFound(err) && ptr.Deref(f.SecretRef.Optional, false) {
					continue
				}
				return nil, err
			}
			for k, v := range s.Data {
				values[f.Prefix+k] = string(v)
			}
		}
	}
	own := map[string]string{}
	known := maps.Clone(values)
	for i := range r.Container.Env {
		e := &r.Container.Env[i]
		v := expand(e.Value, known)
		if e.ValueFrom != nil {
			var ok bool
			if v, ok, err = c.valueFrom(ctx, r, e.ValueFrom); err != nil {
				return nil, err
			}
			if !ok {
				continue
			}
		}
		own[e.Name], known[e.Name] = v, v
	}
	maps.Copy(values, own)
	var out []*runtimeapi.KeyValue
	for _, k := range slices.Sorted(maps.Keys(values)) {
		out = append(out, &runtimeapi.KeyValue{Key: k, Value: []byte(values[k])})
	}
	return out, nil
}

func (c *Converter) valueFrom(ctx context.Context, run *Run, f *v1.EnvVarSource) (string, bool, error) {
	pod := run.Pod
	switch {
	case f.FieldRef != nil:
		v, err := c.fieldValue(pod, f.FieldRef.FieldPath, run.IPs)
		return v, true, err
	case f.ResourceFieldRef != nil:
		of := run.Container
		if n := f.ResourceFieldRef.ContainerName; n != "" {
			if of = podspec.Container(pod, n); of == nil {
				return "", false, fmt.Errorf("container %q not found", n)
			}
		}
		v, err := downward.Resource(pod, of, f.ResourceFieldRef, c.Allocatable())
		return v, true, err
	case f.ConfigMapKeyRef != nil:
		r := f.ConfigMapKeyRef
		optional := ptr.Deref(r.Optional, false)
		cm, err := c.Sources.ConfigMap(ctx, pod.Namespace, r.Name)
		if err != nil {
			if apierrors.IsNotFound(err) && optional {
				return "", false, nil
			}
			return "", false, err
		}
		if v, ok := cm.Data[r.Key]; ok {
			return v, true, nil
		}
		if optional {
			return "", false, nil
		}
		return "", false, fmt.Errorf("couldn't find key %v in ConfigMap %v/%v", r.Key, pod.Namespace, r.Name)
	case f.SecretKeyRef != nil:
		r := f.SecretKeyRef
		optional := ptr.Deref(r.Optional, false)
		s, err := c.Sources.Secret(ctx, pod.Namespace, r.Name)
		if err != nil {
			if apierrors.IsNotFound(err) && optional {
				return "", false, nil
			}
			return "", false, err
		}
		if v, ok := s.Data[r.Key]; ok {
			return string(v), true, nil
		}
		if optional {
			return "", false, nil
		}
		return "", false, fmt.Errorf("couldn't find key %v in Secret %v/%v", r.Key, pod.Namespace, r.Name)
	case f.FileKeyRef != nil:
		return fileValue(run.Volumes, f.FileKeyRef)
	}
	return "", false, errors.New("this source of a variable's value is not known to this node")
}

func (c *Converter) fieldValue(pod *v1.Pod, path string, ips []string) (string, error) {
	var hostIPs []string
	for _, ip := range c.NodeIPs() {
		hostIPs = append(hostIPs, ip.String())
	}
	switch path {
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.hostIP":
		if len(hostIPs) == 0 {
			return "", nil
		}
		return hostIPs[0], nil
	case "status.hostIPs":
		return strings.Join(hostIPs, ","), nil
	case "status.podIP":
		if pod.Spec.HostNetwork && len(hostIPs) > 0 {
			return hostIPs[0], nil
		}
		if len(ips) == 0 {
			return "", nil
		}
		return ips[0], nil
	case "status.podIPs":
		if pod.Spec.HostNetwork {
			ips = hostIPs
		}
		return strings.Join(ips, ","), nil
	}
	return downward.Field(pod, path)
}

// expand replaces $(NAME) by its value; $$ is one $, and unknown names stay as
// they are.
func expand(s string, values map[string]string) string {
	return expandBy(s, func(name string) (string, bool) {
		v, ok := values[name]
		return v, ok
	})
}

// expandPath replaces $(NAME) in a path by its value, which there has to be: without it the path
// would lead elsewhere.
func expandPath(path string, values map[string]string) (string, error) {
	missing := sets.Set[string]{}
	out := expandBy(path, func(name string) (string, bool) {
		v := values[name]
		if v == "" {
			missing.Insert(name)
		}
		return v, true
	})
	if len(missing) > 0 {
		return "", fmt.Errorf("missing value for %s", strings.Join(sets.List(missing), ", "))
	}
	return out, nil
}

// expandBy replaces $(NAME) by its value, if value knows the name.
func expandBy(s string, value func(name string) (string, bool)) string {
	if !strings.Contains(s, "$") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '$' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		switch s[i+1] {
		case '$':
			b.WriteByte('$')
			i++
		case '(':
			end := strings.IndexByte(s[i:], ')')
			if end < 0 {
				b.WriteByte('$')
				continue
			}
			name := s[i+2 : i+end]
			if v, ok := value(name); ok {
				b.WriteString(v)
			} else {
				b.WriteString(s[i : i+end+1])
			}
			i += end
		default:
			b.WriteByte('$')
		}
	}
	return b.String()
}

// serviceEnv returns the variables with the addresses of services: the
// kubernetes one, and with enableServiceLinks those of its namespace.
func (c *Converter) serviceEnv(pod *v1.Pod) (map[string]string, error) {
	out := map[string]string{}
	list, err := c.Services.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	links := pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks
	for _, s := range list {
		if s.Spec.ClusterIP == "" || s.Spec.ClusterIP == v1.ClusterIPNone || len(s.Spec.Ports) == 0 {
			continue
		}
		if !(s.Namespace == metav1.NamespaceDefault && s.Name == "kubernetes") && !(links && s.Namespace == pod.Namespace) {
			continue
		}
		name := strings.ToUpper(strings.ReplaceAll(s.Name, "-", "_"))
		ip := s.Spec.ClusterIP
		first := s.Spec.Ports[0]
		out[name+"_SERVICE_HOST"] = ip
		out[name+"_SERVICE_PORT"] = strconv.Itoa(int(first.Port))
		proto := func(p v1.Protocol) string { return strings.ToLower(string(p)) }
		out[name+"_PORT"] = fmt.Sprintf("%s://%s:%d", proto(first.Protocol), ip, first.Port)
		for _, p := range s.Spec.Ports {
			if p.Name != "" {
				out[name+"_SERVICE_PORT_"+strings.ToUpper(strings.ReplaceAll(p.Name, "-", "_"))] = strconv.Itoa(int(p.Port))
			}
			prefix := fmt.Sprintf("%s_PORT_%d_%s", name, p.Port, p.Protocol)
			out[prefix] = fmt.Sprintf("%s://%s:%d", proto(p.Protocol), ip, p.Port)
			out[prefix+"_PROTO"] = proto(p.Protocol)
			out[prefix+"_PORT"] = strconv.Itoa(int(p.Port))
			out[prefix+"_ADDR"] = ip
		}
	}
	return out, nil
}
