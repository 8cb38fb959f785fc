package resourceclaim

import (
	"strings"
	"testing"
	"testing/synctest"

	v1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

func template(name string) *resourceapi.ResourceClaimTemplate {
	return &resourceapi.ResourceClaimTemplate{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns"}, Spec: resourceapi.ResourceClaimTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}, Annotations: map[string]string{"c": "d"}},
		Spec:       resourceapi.ResourceClaimSpec{Devices: resourceapi.DeviceClaim{Requests: []resourceapi.DeviceRequest{{Name: "gpu"}}}},
	}}
}

func pod(name string, claims ...v1.PodResourceClaim) *v1.Pod {
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns"}, Spec: v1.PodSpec{ResourceClaims: claims}}
}

func from(entry, template string) v1.PodResourceClaim {
	return v1.PodResourceClaim{Name: entry, ResourceClaimTemplateName: ptr.To(template)}
}

func named(entry, claim string) v1.PodResourceClaim {
	return v1.PodResourceClaim{Name: entry, ResourceClaimName: ptr.To(claim)}
}

// allocated returns a claim that some scheduler allocated for pods.
func allocated(name string, pods ...*v1.Pod) *resourceapi.ResourceClaim {
	c := &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns", Finalizers: []string{resourceapi.Finalizer}},
		Status: resourceapi.ResourceClaimStatus{Allocation: &resourceapi.AllocationResult{}}}
	for _, p := range pods {
		c.Status.ReservedFor = append(c.Status.ReservedFor, resourceapi.ResourceClaimConsumerReference{Resource: "pods", Name: p.Name, UID: p.UID})
	}
	return c
}

type cluster struct {
	*controllertest.Cluster
	t *testing.T
}

func (c cluster) pod(p *v1.Pod) *v1.Pod {
	c.t.Helper()
	out := controllertest.Must[*v1.Pod](c.t)(c.Client.CoreV1().Pods("ns").Create(c.t.Context(), p, metav1.CreateOptions{}))
	synctest.Wait()
	return out
}

func (c cluster) claim(o *resourceapi.ResourceClaim) {
	c.t.Helper()
	controllertest.Must[*resourceapi.ResourceClaim](c.t)(c.Client.ResourceV1().ResourceClaims("ns").Create(c.t.Context(), o, metav1.CreateOptions{}))
	synctest.Wait()
}

func (c cluster) claims() []resourceapi.ResourceClaim {
	c.t.Helper()
	synctest.Wait()
	return controllertest.Must[*resourceapi.ResourceClaimList](c.t)(c.Client.ResourceV1().ResourceClaims("ns").List(c.t.Context(), metav1.ListOptions{})).Items
}

func run(t *testing.T, f func(c cluster)) {
	synctest.Test(t, func(t *testing.T) { f(cluster{controllertest.New(t, New), t}) })
}

// TestMadeFromTemplate makes the claims of a pod, once, and again where one was
// deleted; the template may come after the pod.
func TestMadeFromTemplate(t *testing.T) {
	run(t, func(c cluster) {
		p := c.pod(pod("p", from("one", "t"), named("two", "mine")))
		c.HasEvent(`Warning FailedResourceClaimCreation PodResourceClaim one: resource claim template "t": resourceclaimtemplate.resource.k8s.io "t" not found`)
		controllertest.Must[*resourceapi.ResourceClaimTemplate](t)(c.Client.ResourceV1().ResourceClaimTemplates("ns").Create(t.Context(), template("t"), metav1.CreateOptions{}))
		for range 2 {
			list := c.claims()
			if len(list) != 1 {
				t.Fatalf("there are %d claims, want 1", len(list))
			}
			got := list[0]
			if !strings.HasPrefix(got.Name, "p-one-") || !metav1.IsControlledBy(&got, p) || got.Labels["a"] != "b" || got.Annotations["c"] != "d" || got.Annotations[claimAnnotation] != "one" || len(got.Spec.Devices.Requests) != 1 {
				t.Errorf("the claim is %+v", got)
			}
			p := controllertest.Must[*v1.Pod](t)(c.Client.CoreV1().Pods("ns").Get(t.Context(), "p", metav1.GetOptions{}))
			if s := p.Status.ResourceClaimStatuses; len(s) != 1 || s[0].Name != "one" || ptr.Deref(s[0].ResourceClaimName, "") != got.Name {
				t.Errorf("the pod's claims are %+v", s)
			}
			if err := c.Client.ResourceV1().ResourceClaims("ns").Delete(t.Context(), got.Name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestRelease takes reservations, allocations and generated claims back.
func TestRelease(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(c cluster, p *v1.Pod)
		free bool
	}{
		{"runs", func(cluster, *v1.Pod) {}, false},
		{"succeeded", func(c cluster, p *v1.Pod) { c.SetPhase(p, v1.PodSucceeded) }, true},
		{"deleted", func(c cluster, p *v1.Pod) {
			if err := c.Client.CoreV1().Pods("ns").Delete(c.t.Context(), p.Name, metav1.DeleteOptions{}); err != nil {
				c.t.Fatal(err)
			}
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			run(t, func(k cluster) {
				p := k.pod(pod("p", named("one", "shared")))
				k.claim(allocated("shared", p))
				generated := allocated("generated", p)
				generated.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(p, v1.SchemeGroupVersion.WithKind("Pod"))}
				k.claim(generated)
				k.claim(allocated("unused"))
				c.end(k, p)
				k.Advance(0)
				// A generated claim is woken by its pod only where the pod's status names it.
				list := map[string]resourceapi.ResourceClaim{}
				for _, o := range k.claims() {
					list[o.Name] = o
				}
				shared := list["shared"]
				if free := shared.Status.Allocation == nil && len(shared.Status.ReservedFor) == 0 && len(shared.Finalizers) == 0; free != c.free {
					t.Errorf("the claim is free: %v, want %v: %+v", free, c.free, shared)
				}
				if list["unused"].Status.Allocation == nil {
					t.Error("a claim that was never reserved is not allocated any more")
				}
			})
		})
	}
}

// TestReserve reserves an allocated claim for a pod that was placed by hand.
func TestReserve(t *testing.T) {
	run(t, func(c cluster) {
		c.claim(allocated("shared"))
		p := pod("p", named("one", "shared"))
		p.Spec.NodeName = "n"
		p = c.pod(p)
		if r := c.claims()[0].Status.ReservedFor; len(r) != 1 || r[0].UID != p.UID {
			t.Errorf("the claim is reserved for %+v", r)
		}
	})
}

// TestSurvives checks that whatever goes wrong on the way, each pod has one claim,
// and a claim whose pod has gone is gone.
func TestSurvives(t *testing.T) {
	controllertest.Trial{Seeds: 40, Controllers: []controllertest.Constructor{New}, Actions: []controllertest.Action{
		func(c *controllertest.Cluster) {
			_, _ = c.Client.ResourceV1().ResourceClaimTemplates("ns").Create(t.Context(), template("t"), metav1.CreateOptions{})
			for _, n := range []string{"p", "q"} {
				_, _ = c.Client.CoreV1().Pods("ns").Create(t.Context(), pod(n, from("one", "t"), from("two", "t")), metav1.CreateOptions{})
			}
		},
		func(c *controllertest.Cluster) {
			_ = c.Client.CoreV1().Pods("ns").Delete(t.Context(), "q", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)})
		},
	}, End: func(t *testing.T, c *controllertest.Cluster) {
		p := controllertest.Must[*v1.Pod](t)(c.Client.CoreV1().Pods("ns").Get(t.Context(), "p", metav1.GetOptions{}))
		list := controllertest.Must[*resourceapi.ResourceClaimList](t)(c.Client.ResourceV1().ResourceClaims("ns").List(t.Context(), metav1.ListOptions{})).Items
		if len(list) != 2 || !metav1.IsControlledBy(&list[0], p) || !metav1.IsControlledBy(&list[1], p) || len(p.Status.ResourceClaimStatuses) != 2 {
			t.Errorf("the claims are %+v, the pod's %+v", list, p.Status.ResourceClaimStatuses)
		}
	}}.Survives(t)
}

// TestClaimName holds names within the 63 characters of a label.
func TestClaimName(t *testing.T) {
	for _, c := range []struct{ pod, entry, want string }{
		{"web-1", "gpu", "web-1-gpu-"},
		{strings.Repeat("p", 200), strings.Repeat("c", 60), strings.Repeat("p", 43) + "-" + strings.Repeat("c", 13) + "-"},
	} {
		p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: c.pod, UID: "u"}}
		got := claimName(p, c.entry, 0)
		if !strings.HasPrefix(got, c.want) || len(got) != len(c.want)+5 || len(got) > 63 || got == claimName(p, c.entry, 1) || got != claimName(p, c.entry, 0) {
			t.Errorf("claimName(%s, %s) = %s (%d), want %s and five characters", c.pod, c.entry, got, len(got), c.want)
		}
	}
}
