package apiregistration

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	v1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/utils/ptr"
)

func service(change func(*v1.APIService)) *v1.APIService {
	a := &v1.APIService{
		ObjectMeta: metav1.ObjectMeta{Name: "v1.fish.example.com"},
		Spec: v1.APIServiceSpec{
			Group: "fish.example.com", Version: "v1", GroupPriorityMinimum: 1000, VersionPriority: 15,
			Service: &v1.ServiceReference{Namespace: "ns", Name: "fish", Port: ptr.To(int32(443))}, InsecureSkipTLSVerify: true,
		},
	}
	if change != nil {
		change(a)
	}
	return a
}

func TestValidate(t *testing.T) {
	r := Resources()[0]
	for name, c := range map[string]struct {
		obj  *v1.APIService
		want string
	}{
		"good":  {service(nil), ""},
		"local": {service(func(a *v1.APIService) { a.Spec.Service, a.Spec.InsecureSkipTLSVerify = nil, false }), ""},
		"name": {service(func(a *v1.APIService) { a.Name = "fish" }),
			"[metadata.name: Invalid value: \"fish\": must be `spec.version+\".\"+spec.group`: \"v1.fish.example.com\"]"},
		"priority": {service(func(a *v1.APIService) { a.Spec.GroupPriorityMinimum = 0 }),
			"[spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000]"},
		"trust": {service(func(a *v1.APIService) { a.Spec.CABundle = []byte("x") }),
			"[spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present]"},
	} {
		got := ""
		if errs := r.Validate(c.obj); len(errs) > 0 {
			got = "[" + errs.ToAggregate().Error() + "]"
		}
		if got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}

func TestDefaultsAndCells(t *testing.T) {
	r, now := Resources()[0], time.Now()
	remote := service(func(a *v1.APIService) { a.Spec.Service.Port = nil })
	r.Default(remote)
	if got := remote.Spec.Service.Port; got == nil || *got != 443 {
		t.Errorf("port defaults to %v, want 443", got)
	}
	local := service(func(a *v1.APIService) { a.Spec.Service = nil })
	for _, a := range []*v1.APIService{remote, local} {
		a.CreationTimestamp = metav1.Time{Time: now.Add(-time.Minute)}
		r.PrepareForCreate(a)
	}
	for i, c := range []struct {
		obj  *v1.APIService
		want [4]any
	}{{remote, [4]any{remote.Name, "ns/fish", "Unknown", "60s"}}, {local, [4]any{local.Name, "Local", "True", "60s"}}} {
		if got := [4]any(r.Cells(c.obj, now)); got != c.want {
			t.Errorf("%d: cells %v, want %v", i, got, c.want)
		}
	}
	remote.Status.Conditions = []v1.APIServiceCondition{{Type: v1.Available, Status: v1.ConditionFalse, Reason: "MissingEndpoints"}}
	if got := r.Cells(remote, now)[2]; got != "False (MissingEndpoints)" {
		t.Errorf("available: %v", got)
	}
}
