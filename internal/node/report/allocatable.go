package report

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// allocatable returns the capacity less the reservations; memory in huge pages
// cannot be used for anything else.
func allocatable(capacity v1.ResourceList, reserved ...v1.ResourceList) v1.ResourceList {
	out := capacity.DeepCopy()
	take := func(from v1.ResourceName, q resource.Quantity) {
		have, ok := out[from]
		if !ok {
			return
		}
		have.Sub(q)
		if have.Sign() < 0 {
			have.Set(0)
		}
		out[from] = have
	}
	for _, r := range reserved {
		for name, q := range r {
			take(name, q)
		}
	}
	for name, q := range capacity {
		if strings.HasPrefix(string(name), v1.ResourceHugePagesPrefix) {
			take(v1.ResourceMemory, q)
		}
	}
	return out
}

// sum returns the sums of resources.
func sum(lists ...v1.ResourceList) v1.ResourceList {
	out := v1.ResourceList{}
	for _, l := range lists {
		for name, q := range l {
			s := out[name]
			s.Add(q)
			out[name] = s
		}
	}
	return out
}

// hugePages returns the machine's memory in huge pages, by page size.
func hugePages(sys string) v1.ResourceList {
	out := v1.ResourceList{}
	dirs, _ := filepath.Glob(filepath.Join(sys, "kernel/mm/hugepages/hugepages-*kB"))
	for _, d := range dirs {
		size, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimPrefix(filepath.Base(d), "hugepages-"), "kB"), 10, 64)
		if err != nil {
			continue
		}
		b, err := os.ReadFile(filepath.Join(d, "nr_hugepages"))
		if err != nil {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		if err != nil {
			continue
		}
		page := resource.NewQuantity(size<<10, resource.BinarySI)
		out[v1.ResourceName(v1.ResourceHugePagesPrefix+page.String())] = *resource.NewQuantity(n*size<<10, resource.BinarySI)
	}
	return out
}
