package tracing

import (
	"context"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/podspec"
	"keelson.dev/keelson/internal/trace"
	"keelson.dev/keelson/internal/trace/timeline"
)

const (
	// mostObjects is how many objects of a way are looked at, and mostWaits how many waits are told.
	mostObjects = 500
	mostWaits   = 20
)

// waits returns what the objects of a way wait for, and who could change that. The user
// may get all of them.
func (r *Recorder) waits(ctx context.Context, steps []trace.Step) (out []timeline.Wait) {
	seen := map[types.UID]bool{}
	for i := range steps {
		s := &steps[i]
		if s.UID == "" || seen[s.UID] || len(seen) >= mostObjects || len(out) >= mostWaits {
			continue
		}
		seen[s.UID] = true
		row := r.row(schema.ParseGroupResource(s.Resource))
		if row == nil {
			continue
		}
		e, err := r.Store.Get(ctx, row.Key(s.Namespace, s.Name))
		if err != nil || e == nil {
			continue
		}
		acc, err := meta.Accessor(e.Object())
		if err != nil || acc.GetUID() != s.UID {
			continue
		}
		for _, w := range waitsOf(e.Object(), acc) {
			w.Object = row.Singular + "/" + s.Name
			out = append(out, w)
		}
	}
	return out[:min(len(out), mostWaits)]
}

// row returns the stored resource of that name, nil if there is none.
func (r *Recorder) row(gr schema.GroupResource) *api.Resource {
	for _, row := range r.Catalogue.All() {
		if row.GroupVersionResource.GroupResource() == gr && !row.NotStored {
			return row
		}
	}
	return nil
}

// waitsOf returns what one object waits for.
func waitsOf(obj runtime.Object, acc metav1.Object) (out []timeline.Wait) {
	say := func(who, format string, args ...any) {
		out = append(out, timeline.Wait{For: fmt.Sprintf(format, args...), Who: who})
	}
	if acc.GetDeletionTimestamp() != nil {
		for _, f := range acc.GetFinalizers() {
			who := "what removes this finalizer"
			if by := finalizedBy(acc, f); by != "" {
				who = by + ", which has set it"
			}
			say(who, "the removal of its finalizer %s", f)
		}
		if p, ok := obj.(*v1.Pod); ok && p.Spec.NodeName != "" && len(p.Finalizers) == 0 {
			say("the processes of its containers; a deletion with --grace-period=0 --force does not wait", "the kubelet of %s, which ends its containers until %s", p.Spec.NodeName, p.DeletionTimestamp.UTC().Format(time.TimeOnly)+" UTC")
		}
		return out
	}
	switch o := obj.(type) {
	case *v1.Pod:
		podWaits(o, say)
	case *v1.PersistentVolumeClaim:
		if o.Status.Phase == v1.ClaimPending {
			claimWaits(o, say)
		}
	case *v1.Service:
		if o.Spec.Type == v1.ServiceTypeLoadBalancer && len(o.Status.LoadBalancer.Ingress) == 0 {
			say("the controller of its class of load balancers", "the address of its load balancer")
		}
	case *appsv1.Deployment:
		if o.Spec.Paused {
			say("who sets spec.paused to false (kubectl rollout resume)", "the end of its pause")
		}
		for _, c := range o.Status.Conditions {
			if c.Type == appsv1.DeploymentReplicaFailure && c.Status == v1.ConditionTrue {
				say("", "pods that cannot be made: %s", c.Message)
			}
		}
	case *appsv1.ReplicaSet:
		for _, c := range o.Status.Conditions {
			if c.Type == appsv1.ReplicaSetReplicaFailure && c.Status == v1.ConditionTrue {
				say("what refuses them: a quota, a policy or a webhook", "pods that cannot be made: %s", c.Message)
			}
		}
	case *batchv1.Job:
		if o.Spec.Suspend != nil && *o.Spec.Suspend {
			say("who sets spec.suspend to false", "the end of its suspension")
		}
	}
	return out
}

// finalizedBy returns the field manager that has set a finalizer, "" if that is not known.
func finalizedBy(acc metav1.Object, finalizer string) string {
	for _, m := range acc.GetManagedFields() {
		if m.FieldsV1 != nil && strings.Contains(m.FieldsV1.GetRawString(), fmt.Sprintf(`"v:\"%s\""`, finalizer)) {
			return m.Manager
		}
	}
	return ""
}

func podWaits(p *v1.Pod, say func(who, format string, args ...any)) {
	if p.Status.Phase == v1.PodSucceeded || p.Status.Phase == v1.PodFailed {
		return
	}
	for _, g := range p.Spec.SchedulingGates {
		say("who has set the gate, or removes it from spec.schedulingGates", "its scheduling gate %s", g.Name)
	}
	if p.Spec.NodeName == "" {
		switch c := podspec.Condition(p, v1.PodScheduled); {
		case len(p.Spec.SchedulingGates) > 0:
		case c != nil && c.Status == v1.ConditionFalse:
			say("who adds or frees nodes (or a cluster autoscaler), or changes what the pod asks for", "a node that fits: %s", c.Message)
		default:
			say("the scheduler "+p.Spec.SchedulerName, "a node")
		}
		return
	}
	kubelet := "the kubelet of " + p.Spec.NodeName
	if c := podspec.Condition(p, v1.PodReady); c != nil && c.Status == v1.ConditionTrue {
		return
	}
	told := false
	for _, all := range [][]v1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses} {
		for i := range all {
			cs := &all[i]
			switch w := cs.State.Waiting; {
			case w == nil:
			case w.Reason == "ImagePullBackOff" || w.Reason == "ErrImagePull":
				say("who corrects the image's name, its registry or the pull secret", "the image of the container %s: %s", cs.Name, w.Message)
				told = true
			case w.Reason == "CrashLoopBackOff":
				say("who corrects the program, its arguments or what it needs (kubectl logs --previous)", "the next start of the container %s: %s", cs.Name, w.Message)
				told = true
			case strings.HasPrefix(w.Reason, "Create") || strings.HasPrefix(w.Reason, "Run") || w.Reason == "InvalidImageName" || w.Reason == "ErrImageNeverPull":
				say("who corrects the pod, or makes what it names", "the container %s: %s: %s", cs.Name, w.Reason, w.Message)
				told = true
			}
		}
	}
	if told {
		return
	}
	if p.Status.Phase != v1.PodRunning {
		say(kubelet, "its containers to start on %s", p.Spec.NodeName)
		return
	}
	for i := range p.Status.ContainerStatuses {
		if cs := &p.Status.ContainerStatuses[i]; !cs.Ready && cs.State.Running != nil {
			say("the program in it, or who corrects the probe", "the readiness of the container %s: its probe does not succeed", cs.Name)
		}
	}
	for _, g := range p.Spec.ReadinessGates {
		if c := podspec.Condition(p, g.ConditionType); c == nil || c.Status != v1.ConditionTrue {
			say("the controller that sets it", "its readiness gate %s", g.ConditionType)
		}
	}
}

func claimWaits(c *v1.PersistentVolumeClaim, say func(who, format string, args ...any)) {
	provisioner := c.Annotations["volume.kubernetes.io/storage-provisioner"]
	switch {
	case c.Spec.StorageClassName == nil || *c.Spec.StorageClassName == "":
		say("who makes such a volume, or a default StorageClass", "a PersistentVolume that fits")
	case provisioner != "":
		say(provisioner, "the provisioner %s to make its volume", provisioner)
	default:
		say("a pod that uses it, or who makes the StorageClass", "the StorageClass %s, or a pod that uses the claim", *c.Spec.StorageClassName)
	}
}
