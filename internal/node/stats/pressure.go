package stats

import (
	"strconv"
	"strings"

	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// The resources that the kernel tells the pressure on.
const (
	pressureCPU    = "cpu"
	pressureMemory = "memory"
	pressureIO     = "io"
)

// pressure returns how long the tasks of a cgroup have waited for a resource (PSI,
// https://docs.kernel.org/accounting/psi.html), nil where the kernel does not count that: in
// cgroup v1, or without CONFIG_PSI.
func (c cgroups) pressure(path, resource string) *statsapi.PSIStats {
	if !c.v2 {
		return nil
	}
	text, ok := c.read("", path, resource+".pressure")
	if !ok || text == "" {
		return nil
	}
	out := &statsapi.PSIStats{}
	for line := range strings.Lines(text) {
		kind, rest, _ := strings.Cut(line, " ")
		d := &out.Some
		if kind == "full" {
			d = &out.Full
		}
		for f := range strings.FieldsSeq(rest) {
			name, value, _ := strings.Cut(f, "=")
			switch name {
			case "avg10":
				d.Avg10, _ = strconv.ParseFloat(value, 64)
			case "avg60":
				d.Avg60, _ = strconv.ParseFloat(value, 64)
			case "avg300":
				d.Avg300, _ = strconv.ParseFloat(value, 64)
			case "total":
				n, _ := strconv.ParseUint(value, 10, 64)
				d.Total = n * 1000
			}
		}
	}
	return out
}
