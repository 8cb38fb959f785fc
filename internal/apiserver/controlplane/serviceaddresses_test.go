package controlplane

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/apiserver/inprocess"
)

func clusterIPService(name, ip string) *v1.Service {
	return &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.ServiceSpec{ClusterIP: ip, Ports: []v1.ServicePort{{Port: 80}}}}
}

// addressesOf has an IPAddress object for each Service that there is, and no other.
func addressesOf(t *testing.T, c *Instance) map[string]string {
	t.Helper()
	list, err := c.Client(inprocess.Admin).NetworkingV1().IPAddresses().List(t.Context(), metav1.ListOptions{LabelSelector: "ipaddress.kubernetes.io/managed-by=ipallocator.k8s.io"})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, a := range list.Items {
		out[a.Name] = a.Spec.ParentRef.Namespace + "/" + a.Spec.ParentRef.Name
	}
	return out
}

func TestServiceAddresses(t *testing.T) {
	c := boot(t, Options{NoDrain: true, ServiceCIDR: netip.MustParsePrefix("10.20.0.0/29")})
	ctx := t.Context()
	client := c.Client(inprocess.Admin)
	services, cidrs := client.CoreV1().Services("default"), client.NetworkingV1().ServiceCIDRs()
	own, err := cidrs.Get(ctx, "kubernetes", metav1.GetOptions{})
	if err != nil || !slices.Equal(own.Spec.CIDRs, []string{"10.20.0.0/29"}) || !meta.IsStatusConditionTrue(own.Status.Conditions, networkingv1.ServiceCIDRConditionReady) {
		t.Fatalf("the default range: %+v, %v", own, err)
	}
	want := map[string]string{}
	make := func(name, ip string) (string, error) {
		s, err := services.Create(ctx, clusterIPService(name, ip), metav1.CreateOptions{})
		if err != nil {
			return "", err
		}
		want[s.Spec.ClusterIP] = "default/" + name
		return s.Spec.ClusterIP, nil
	}
	for i := range 6 {
		if _, err := make(fmt.Sprint("s", i), ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := make("more", ""); !apierrors.IsInternalError(err) || !strings.Contains(err.Error(), "range is full") {
		t.Errorf("the range is full: %v", err)
	}
	// Another range counts at once.
	if _, err := cidrs.Create(ctx, &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "second"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.21.0.0/24"}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if ip, err := make("more", ""); err != nil || !strings.HasPrefix(ip, "10.21.0.") {
		t.Errorf("of the second range: %s, %v", ip, err)
	}
	if ip, err := make("number", "10.21.0.7"); err != nil || ip != "10.21.0.7" {
		t.Errorf("by number: %s, %v", ip, err)
	}
	if _, err := make("taken", "10.21.0.7"); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "failed to allocate IP 10.21.0.7: provided IP is already allocated") {
		t.Errorf("taken: %v", err)
	}
	if _, err := make("nowhere", "10.22.0.7"); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "failed to allocate IP 10.22.0.7: the provided network does not match the current range") {
		t.Errorf("of no range: %v", err)
	}
	// What is not created takes nothing: a name twice, a wrong port, a dry run.
	if _, err := make("number", ""); !apierrors.IsAlreadyExists(err) {
		t.Errorf("twice: %v", err)
	}
	wrong := clusterIPService("wrong", "")
	wrong.Spec.Ports[0].Port = 0
	if _, err := services.Create(ctx, wrong, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("wrong: %v", err)
	}
	if _, err := services.Create(ctx, clusterIPService("dry", ""), metav1.CreateOptions{DryRun: []string{"All"}}); err != nil {
		t.Errorf("dry run: %v", err)
	}
	if got := addressesOf(t, c); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the addresses are %v, want %v", got, want)
	}
	// A change of type and a deletion let go.
	number, err := services.Get(ctx, "number", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	number.Spec = v1.ServiceSpec{Type: v1.ServiceTypeExternalName, ExternalName: "example.com"}
	if _, err := services.Update(ctx, number, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	delete(want, "10.21.0.7")
	if err := services.Delete(ctx, "s0", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for ip, of := range want {
		if of == "default/s0" {
			delete(want, ip)
		}
	}
	if got := addressesOf(t, c); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the addresses are %v, want %v", got, want)
	}
	// An address that is deleted comes back.
	for ip := range want {
		if err := client.NetworkingV1().IPAddresses().Delete(ctx, ip, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		break
	}
	if err := wait.PollUntilContextTimeout(ctx, 5*time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) {
		return fmt.Sprint(addressesOf(t, c)) == fmt.Sprint(want), nil
	}); err != nil {
		t.Errorf("the addresses are %v, want %v", addressesOf(t, c), want)
	}
}

// TestAddressesAfterCrash checks that a server that died between the two objects
// leaves either a Service without an address or an address without a Service; the
// next one repairs.
func TestAddressesAfterCrash(t *testing.T) {
	dir := t.TempDir()
	o := Options{NoDrain: true, DataDir: dir}
	c, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Client(inprocess.Admin).CoreV1().Services("default").Create(t.Context(), clusterIPService("s", ""), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	key := c.Catalogue.Must(networkingv1.GroupName, "v1", "ipaddresses").Key("", s.Spec.ClusterIP)
	e, err := c.Store.Get(t.Context(), key)
	if err != nil || e == nil {
		t.Fatal(err)
	}
	orphan := e.Object().(*networkingv1.IPAddress).DeepCopy()
	orphan.Name, orphan.UID, orphan.ResourceVersion = "10.96.7.7", "orphan", ""
	orphan.CreationTimestamp = metav1.NewTime(time.Now().Add(-time.Hour))
	orphan.Spec.ParentRef.Name = "never-made"
	if _, err := c.Store.Create(t.Context(), c.Catalogue.Must(networkingv1.GroupName, "v1", "ipaddresses").Key("", orphan.Name), orphan, 0); err != nil {
		t.Fatal(err)
	}
	// The server ends before it can see that the address is gone.
	c.Process.End()
	c.Process.Wait()
	if _, err := c.Store.Delete(t.Context(), key, e.ModRevision); err != nil {
		t.Fatal(err)
	}
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	again := boot(t, o)
	want := map[string]string{s.Spec.ClusterIP: "default/s"}
	if got := addressesOf(t, again); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the addresses are %v, want %v", got, want)
	}
}

// TestNoAddressTwice has many Services ask for few addresses at once.
func TestNoAddressTwice(t *testing.T) {
	c := boot(t, Options{NoDrain: true, ServiceCIDR: netip.MustParsePrefix("10.20.0.0/26")})
	services := c.Client(inprocess.Admin).CoreV1().Services("default")
	var wg sync.WaitGroup
	var mu sync.Mutex
	given, refused := map[string]bool{}, 0
	for i := range 80 {
		wg.Go(func() {
			s, err := services.Create(t.Context(), clusterIPService(fmt.Sprint("s", i), ""), metav1.CreateOptions{})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				refused++
			case given[s.Spec.ClusterIP]:
				t.Errorf("%s was given twice", s.Spec.ClusterIP)
			default:
				given[s.Spec.ClusterIP] = true
			}
		})
	}
	wg.Wait()
	if len(given) != 62 || refused != 18 || len(addressesOf(t, c)) != 62 {
		t.Errorf("%d were given, %d refused, %d are taken; want 62, 18, 62", len(given), refused, len(addressesOf(t, c)))
	}
}

// TestSecondRange checks that a cluster that gets a range of the other family gives
// Services addresses of both, where they ask for them; those that there are stay as
// they are.
func TestSecondRange(t *testing.T) {
	o := Options{NoDrain: true, DataDir: t.TempDir()}
	c, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	preferring := func(name string) *v1.Service {
		s := clusterIPService(name, "")
		s.Spec.IPFamilyPolicy = ptr.To(v1.IPFamilyPolicyPreferDualStack)
		return s
	}
	services := c.Client(inprocess.Admin).CoreV1().Services("default")
	first, err := services.Create(t.Context(), preferring("first"), metav1.CreateOptions{})
	if err != nil || len(first.Spec.ClusterIPs) != 1 {
		t.Fatalf("with one family: %v, %v", first, err)
	}
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	o.SecondServiceCIDR = netip.MustParsePrefix("fd00:10:96::/112")
	c = boot(t, o)
	services = c.Client(inprocess.Admin).CoreV1().Services("default")
	cidr, err := c.Client(inprocess.Admin).NetworkingV1().ServiceCIDRs().Get(t.Context(), "kubernetes", metav1.GetOptions{})
	if err != nil || fmt.Sprint(cidr.Spec.CIDRs) != "[10.96.0.0/16 fd00:10:96::/112]" {
		t.Errorf("the default ServiceCIDR has %v, %v", cidr.Spec.CIDRs, err)
	}
	second, err := services.Create(t.Context(), preferring("second"), metav1.CreateOptions{})
	if err != nil || len(second.Spec.ClusterIPs) != 2 || !strings.HasPrefix(second.Spec.ClusterIPs[1], "fd00:10:96::") {
		t.Fatalf("with two: %v, %v", second, err)
	}
	if first, err = services.Get(t.Context(), "first", metav1.GetOptions{}); err != nil || len(first.Spec.ClusterIPs) != 1 {
		t.Fatalf("a Service from before: %v, %v", first, err)
	}
	first.Spec.IPFamilyPolicy = ptr.To(v1.IPFamilyPolicyRequireDualStack)
	if first, err = services.Update(t.Context(), first, metav1.UpdateOptions{}); err != nil || len(first.Spec.ClusterIPs) != 2 {
		t.Errorf("asks for both: %v, %v", first, err)
	}
	second.Spec.IPFamilyPolicy = ptr.To(v1.IPFamilyPolicySingleStack)
	gone := second.Spec.ClusterIPs[1]
	if second, err = services.Update(t.Context(), second, metav1.UpdateOptions{}); err != nil || len(second.Spec.ClusterIPs) != 1 || len(second.Spec.IPFamilies) != 1 {
		t.Errorf("gives the second up: %v, %v", second, err)
	}
	if held := addressesOf(t, c); held[gone] != "" || len(held) != 3 {
		t.Errorf("the addresses are %v", held)
	}
}
