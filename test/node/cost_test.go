package node_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/procfs"
)

// The parts that the processor time of starting pods is told of.
const (
	ourPart       = "keelson" // the API server, the controllers, the scheduler, the agent, and the benchmark
	daemonPart    = "containerd"
	pluginPart    = "CNI and the starts of shims" // containerd's children
	shimPart      = "shims"
	runcPart      = "runc"       // the shims' children that have ended
	containerPart = "containers" // those that have not, among them what runc did before it became one
)

// cost is what the start of pods took.
type cost struct {
	pods int
	time time.Duration
	cpu  map[string]time.Duration // by part
}

func (c cost) seconds() float64 { return c.time.Seconds() }
func (c cost) processor() (sum float64) {
	for _, d := range c.cpu {
		sum += d.Seconds()
	}
	return sum
}

// String tells the time, and the processor time of a pod.
func (c cost) String() string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(c.cpu)) {
		parts = append(parts, fmt.Sprintf("%s %.1f", name, c.cpu[name].Seconds()*1000/float64(c.pods)))
	}
	return fmt.Sprintf("%d ms, %.1f ms of processor time a pod (%s)", c.time.Milliseconds(), c.processor()*1000/float64(c.pods), strings.Join(parts, ", "))
}

func mean(all []cost) (sum float64) {
	for _, c := range all {
		sum += c.seconds() / float64(len(all))
	}
	return sum
}

func median(all []cost, of func(cost) float64) float64 {
	var values []float64
	for _, c := range all {
		values = append(values, of(c))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// measure begins to measure the start of pods, and returns what ends that.
func (e *env) measure(b *testing.B, pods int) func() cost {
	before, begin := e.processorTimes(b), time.Now()
	return func() cost {
		c := cost{pods: pods, time: time.Since(begin), cpu: e.processorTimes(b)}
		for part := range c.cpu {
			c.cpu[part] -= before[part]
		}
		return c
	}
}

// ticks returns a time of proc_pid_stat(5).
func ticks[T uint | int](n T) time.Duration { return time.Duration(n) * 10 * time.Millisecond }

// processorTimes returns what this process and what it has started have used until now. A
// process that has ended is counted by the one that has waited for it.
func (e *env) processorTimes(b *testing.B) map[string]time.Duration {
	all, err := procfs.AllProcs()
	if err != nil {
		b.Fatal(err)
	}
	var stats []procfs.ProcStat
	daemon, shims := 0, map[int]bool{}
	for _, p := range all {
		st, err := p.Stat()
		if err != nil {
			continue // it has ended
		}
		stats = append(stats, st)
		switch {
		case st.Comm == "containerd" && st.PPID == os.Getpid():
			daemon = st.PID
		case strings.HasPrefix(st.Comm, "containerd-shim"):
			line, err := p.CmdLine()
			shims[st.PID] = err == nil && slices.Contains(line, strings.TrimPrefix(e.runtime, "unix://"))
		}
	}
	out := map[string]time.Duration{}
	for _, st := range stats {
		own, children := ticks(st.UTime+st.STime), ticks(st.CUTime+st.CSTime)
		switch {
		case st.PID == os.Getpid():
			out[ourPart] += own
		case st.PID == daemon:
			out[daemonPart] += own
			out[pluginPart] += children
		case shims[st.PID]:
			out[shimPart] += own
			out[runcPart] += children
		case shims[st.PPID]:
			out[containerPart] += own + children
		}
	}
	return out
}
