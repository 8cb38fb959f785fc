package admission

import (
	"strings"

	"github.com/spf13/pflag"
)

// AddFlags adds upstream's flags of admission.
func (s *Selection) AddFlags(fs *pflag.FlagSet) {
	s.NotReadySeconds, s.UnreachableSeconds = new(int64), new(int64)
	fs.StringSliceVar(&s.Enable, "enable-admission-plugins", nil, "admission plugins to enable besides those that are on by default ("+
		strings.Join(DefaultNames(), ", ")+"). Comma-delimited list of admission plugins: "+strings.Join(Names(), ", ")+". Their order here does not matter.")
	fs.StringSliceVar(&s.Disable, "disable-admission-plugins", nil, "admission plugins to disable although they are on by default")
	fs.StringVar(&s.ConfigFile, "admission-control-config-file", "", "file with the admission plugins' configuration (AdmissionConfiguration)")
	fs.Int64Var(s.NotReadySeconds, "default-not-ready-toleration-seconds", 300, "how long pods stay on a node that is not ready, where they do not say it")
	fs.Int64Var(s.UnreachableSeconds, "default-unreachable-toleration-seconds", 300, "how long pods stay on a node that is not reachable, where they do not say it")
}
