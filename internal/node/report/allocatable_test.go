package report

import (
	"maps"
	"os"
	"path/filepath"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
)

// amounts returns quantities by resource.
func amounts(pairs ...string) v1.ResourceList {
	out := v1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		out[v1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return out
}

func TestAllocatable(t *testing.T) {
	capacity := amounts("cpu", "4", "memory", "8Gi", "ephemeral-storage", "100Gi", "pods", "110")
	for _, c := range []struct {
		name     string
		capacity v1.ResourceList
		reserved []v1.ResourceList
		want     v1.ResourceList
	}{
		{"nothing reserved", capacity, nil, nil},
		{"kubelet, system, eviction", capacity, []v1.ResourceList{amounts("cpu", "500m", "memory", "1Gi"), amounts("cpu", "500m"), amounts("memory", "100Mi", "ephemeral-storage", "10Gi")},
			amounts("cpu", "3", "memory", "7068Mi", "ephemeral-storage", "90Gi")},
		{"more than there is", capacity, []v1.ResourceList{amounts("cpu", "8")}, amounts("cpu", "0")},
		{"of what is not there", capacity, []v1.ResourceList{amounts("pid", "100")}, nil},
		{"huge pages", amounts("memory", "8Gi", "hugepages-2Mi", "1Gi"), []v1.ResourceList{amounts("memory", "1Gi")}, amounts("memory", "6Gi")},
	} {
		want := c.capacity.DeepCopy()
		maps.Copy(want, c.want)
		if got := allocatable(c.capacity, c.reserved...); !equality.Semantic.DeepEqual(got, want) {
			t.Errorf("%s: %v, want %v", c.name, got, want)
		}
	}
}

func TestHugePages(t *testing.T) {
	sys := t.TempDir()
	for size, n := range map[string]string{"2048kB": "16\n", "1048576kB": "0\n"} {
		dir := filepath.Join(sys, "kernel/mm/hugepages/hugepages-"+size)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "nr_hugepages"), []byte(n), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := hugePages(sys), amounts("hugepages-2Mi", "32Mi", "hugepages-1Gi", "0"); !equality.Semantic.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
