package eviction

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// AddFlags adds the kubelet's flags of eviction.
func (s *Settings) AddFlags(fs *pflag.FlagSet) {
	fs.Var(&thresholds{DefaultHard, '<', &s.Hard}, "eviction-hard", "thresholds below which pods are evicted at once, like memory.available<1Gi; empty for none")
	fs.Var(&thresholds{nil, '<', &s.Soft}, "eviction-soft", "thresholds below which pods are evicted after a grace period, like memory.available<1.5Gi")
	fs.Var(&thresholds{nil, '=', &s.SoftGrace}, "eviction-soft-grace-period", "how long less may be left, for each soft threshold, like memory.available=1m30s")
	fs.Var(&thresholds{nil, '=', &s.MinimumReclaim}, "eviction-minimum-reclaim", "how much more than its threshold has to be left for the pressure to be over, like imagefs.available=2Gi")
	fs.Int64Var(&s.MaxPodGrace, "eviction-max-pod-grace-period", 0, "the most, in seconds, that a pod is given to end where a soft threshold evicts it")
	fs.DurationVar(&s.Transition, "eviction-pressure-transition-period", DefaultTransition, "how long the node stays under pressure after its last cause")
}

// thresholds is a flag of thresholds by signal, with upstream's separator.
type thresholds struct {
	standard  map[string]string
	separator byte
	to        *map[string]string
}

// String implements pflag.Value.
func (t *thresholds) String() string {
	if t.to == nil {
		return ""
	}
	m := *t.to
	if m == nil {
		m = t.standard
	}
	parts := make([]string, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, k+string(t.separator)+m[k])
	}
	return strings.Join(parts, ",")
}

// Set implements pflag.Value; what is set takes the place of all of the default.
func (t *thresholds) Set(s string) error {
	m := map[string]string{}
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		signal, value, ok := strings.Cut(part, string(t.separator))
		if !ok {
			return fmt.Errorf("malformed pair, expect string%cstring: %q", t.separator, part)
		}
		m[strings.TrimSpace(signal)] = strings.TrimSpace(value)
	}
	*t.to = m
	return nil
}

// Type implements pflag.Value.
func (t *thresholds) Type() string { return "mapStringString" }
