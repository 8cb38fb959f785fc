package priority

import (
	"github.com/spf13/pflag"

	"keelson.dev/keelson/internal/flagvalue"
)

// AddFlags adds upstream's flags of priority and fairness.
func (f *Selection) AddFlags(fs *pflag.FlagSet) {
	flagvalue.NotVar(fs, &f.Off, "enable-priority-and-fairness", "queue requests by FlowSchemas and PriorityLevelConfigurations; false refuses requests beyond --max-requests-inflight and --max-mutating-requests-inflight")
	fs.IntVar(&f.InFlight, "max-requests-inflight", 400, "together with --max-mutating-requests-inflight, how many requests are answered at once, shared among the priority levels; "+
		"without priority and fairness, how many that change nothing, 0 for no limit")
	fs.IntVar(&f.MutatingInFlight, "max-mutating-requests-inflight", 200, "see --max-requests-inflight; without priority and fairness, how many requests that change something are answered at once, 0 for no limit")
}
