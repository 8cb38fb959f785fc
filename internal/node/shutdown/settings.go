package shutdown

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// Settings say how long pods have to end before the machine shuts down; nothing is
// delayed where they are zero.
type Settings struct {
	// Period is the time of all pods together, of which Critical is that of the critical
	// ones, after all others.
	Period, Critical time.Duration
	// Groups are the times by priority, in place of these.
	Groups []Group
}

// Group is the time of the pods whose priority is so high, or higher and below that of the
// next group.
type Group struct {
	Priority int32
	Seconds  int64
}

// systemCritical is the least priority of critical pods.
const systemCritical = 2_000_000_000

// ByPriority returns the groups of pods.
func (s *Settings) ByPriority() []Group {
	if len(s.Groups) > 0 || s.Period == 0 {
		return s.Groups
	}
	return []Group{{0, int64((s.Period - s.Critical) / time.Second)}, {systemCritical, int64(s.Critical / time.Second)}}
}

// Total returns the time of all pods together.
func (s *Settings) Total() time.Duration {
	sum := int64(0)
	for _, g := range s.ByPriority() {
		sum += g.Seconds
	}
	return time.Duration(sum) * time.Second
}

// Validate reports what is wrong with the settings.
func (s *Settings) Validate() error {
	switch {
	case s.Period != 0 && s.Period < time.Second:
		return fmt.Errorf("invalid configuration: shutdownGracePeriod %v must be either zero or otherwise >= 1 sec", s.Period)
	case s.Critical != 0 && s.Critical < time.Second:
		return fmt.Errorf("invalid configuration: shutdownGracePeriodCriticalPods %v must be either zero or otherwise >= 1 sec", s.Critical)
	case s.Critical > s.Period:
		return fmt.Errorf("invalid configuration: shutdownGracePeriodCriticalPods {%v} must be <= shutdownGracePeriod {%v}", s.Critical, s.Period)
	case len(s.Groups) > 0 && s.Period+s.Critical > 0:
		return errors.New("invalid configuration: Cannot specify both shutdownGracePeriodByPodPriority and shutdownGracePeriod at the same time")
	}
	for i, g := range s.Groups {
		if g.Seconds < 0 {
			return fmt.Errorf("invalid configuration: shutdownGracePeriodByPodPriority: %d seconds of the priority %d", g.Seconds, g.Priority)
		}
		if slices.ContainsFunc(s.Groups[:i], func(o Group) bool { return o.Priority == g.Priority }) {
			return fmt.Errorf("invalid configuration: shutdownGracePeriodByPodPriority has the priority %d twice", g.Priority)
		}
	}
	return nil
}

// AddFlags adds the flags of the settings.
func (s *Settings) AddFlags(fs *pflag.FlagSet) {
	fs.DurationVar(&s.Period, "shutdown-grace-period", 0, "how long a shutdown of the machine is delayed for pods to end; 0 does not delay it")
	fs.DurationVar(&s.Critical, "shutdown-grace-period-critical-pods", 0, "the part of --shutdown-grace-period for critical pods, which end after all others")
	fs.Var((*groups)(&s.Groups), "shutdown-grace-period-by-pod-priority", "seconds that pods have by their least priority, in place of these two, like 0=60,100000=30,2000000000=10")
}

// groups is a flag of groups.
type groups []Group

// Set implements pflag.Value; what is set takes the place of what there was.
func (g *groups) Set(s string) error {
	var out groups
	for part := range strings.SplitSeq(s, ",") {
		if part == "" {
			continue
		}
		p, n, _ := strings.Cut(part, "=")
		priority, err := strconv.ParseInt(p, 10, 32)
		seconds, bad := strconv.ParseInt(n, 10, 64)
		if err != nil || bad != nil {
			return fmt.Errorf("%q: give PRIORITY=SECONDS", part)
		}
		out = append(out, Group{int32(priority), seconds})
	}
	*g = out
	return nil
}

// String implements pflag.Value.
func (g *groups) String() string {
	var parts []string
	for _, x := range *g {
		parts = append(parts, fmt.Sprintf("%d=%d", x.Priority, x.Seconds))
	}
	return strings.Join(parts, ",")
}

// Type implements pflag.Value.
func (g *groups) Type() string { return "string" }
