package eviction

import (
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestThresholds(t *testing.T) {
	for _, c := range []struct {
		name string
		s    Settings
		want string // signal value/grace, separated by spaces
		err  string
	}{
		{"the defaults", Settings{Hard: DefaultHard}, "imagefs.available:50/0s imagefs.inodesFree:50/0s memory.available:104857600/0s nodefs.available:50/0s nodefs.inodesFree:50/0s allocatableMemory.available:104857600/0s", ""},
		{"none", Settings{Hard: map[string]string{}}, "", ""},
		{"0% and 100% are none", Settings{Hard: map[string]string{"nodefs.available": "0%", "imagefs.available": "100%"}}, "", ""},
		{"a soft one", Settings{Soft: map[string]string{"memory.available": "30%"}, SoftGrace: map[string]string{"memory.available": "90s"}}, "memory.available:300/1m30s", ""},
		{"a soft one without a grace period", Settings{Soft: map[string]string{"memory.available": "30%"}}, "", "grace period must be specified for the soft eviction threshold memory.available"},
		{"a negative grace period", Settings{Soft: map[string]string{"memory.available": "30%"}, SoftGrace: map[string]string{"memory.available": "-90s"}}, "", "must be a positive value"},
		{"an unknown signal", Settings{Hard: map[string]string{"luck.available": "1"}}, "", "unsupported eviction signal luck.available"},
		{"a grace period of an unknown signal", Settings{SoftGrace: map[string]string{"luck.available": "1s"}}, "", "unsupported eviction signal luck.available"},
		{"too much", Settings{Hard: map[string]string{"nodefs.available": "101%"}}, "", "must be <= 100%"},
		{"less than nothing", Settings{Hard: map[string]string{"nodefs.available": "-1%"}}, "", "must be >= 0%"},
		{"nothing", Settings{Hard: map[string]string{"memory.available": "0"}}, "", "must be positive"},
		{"no number", Settings{Hard: map[string]string{"memory.available": "much"}}, "", `"much"`},
	} {
		got, err := c.s.Thresholds()
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v, want %s", c.name, err, c.err)
			}
			continue
		}
		var parts []string
		for _, x := range got {
			parts = append(parts, string(x.Signal)+":"+resource.NewQuantity(x.Value.Of(1000), resource.DecimalSI).AsDec().String()+"/"+x.Grace.String())
		}
		if s := strings.Join(parts, " "); err != nil || s != c.want {
			t.Errorf("%s: %q, %v, want %q", c.name, s, err, c.want)
		}
	}
}

func TestReserved(t *testing.T) {
	all, err := (&Settings{Hard: DefaultHard, Soft: map[string]string{"memory.available": "50%"}, SoftGrace: map[string]string{"memory.available": "1s"}}).Thresholds()
	if err != nil {
		t.Fatal(err)
	}
	got := Reserved(all, v1.ResourceList{v1.ResourceMemory: resource.MustParse("8Gi"), v1.ResourceEphemeralStorage: resource.MustParse("100Gi")})
	if m, s := got[v1.ResourceMemory], got[v1.ResourceEphemeralStorage]; m.String() != "100Mi" || s.String() != "5Gi" || len(got) != 2 {
		t.Errorf("%v", got)
	}
}
