package embedded

import (
	"time"

	"github.com/spf13/pflag"
)

// AddFlags adds the flags of the history on disk.
func (o *PastOptions) AddFlags(fs *pflag.FlagSet) {
	fs.DurationVar(&o.Age, "history-age", time.Hour, "how long the store remembers what was changed, over restarts, so that the past can be read (keelson kubectl --at 10m get pods); 0 remembers nothing")
	fs.Int64Var(&o.Size, "history-size", 256<<20, "about how many bytes the history may take on disk; what is oldest goes first")
}
