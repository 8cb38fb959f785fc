package main

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"strconv"
	"strings"

	cliflag "k8s.io/component-base/cli/flag"

	"keelson.dev/keelson/internal/apiserver/features"
	"keelson.dev/keelson/internal/cluster"
)

// The sets of flags that several packages add to.
const (
	apiServer     = "API server"
	secureServing = "secure serving"
)

// apiServerFlags holds the flags of kube-apiserver that Keelson has under another
// name, or that are not the options of one package.
type apiServerFlags struct {
	bind         string
	port         int
	serviceRange string
	contention   bool
	gates        featureGates
}

func (f *apiServerFlags) addFlags(sets *cliflag.NamedFlagSets) {
	fs := sets.FlagSet(apiServer)
	fs.Var(&f.gates, "feature-gates", "feature gates, name=bool, comma separated: "+strings.Join(features.Switchable(), ", ")+" can be switched, all others are taken at their default only")
	fs.StringVar(&f.serviceRange, "service-cluster-ip-range", "", "range of the services' addresses, or one of each family, comma separated; upstream's name of --service-cidr")
	fs.BoolVar(&f.contention, "contention-profiling", false, "with --profiling: also how long goroutines wait for locks")
	fs = sets.FlagSet(secureServing)
	fs.StringVar(&f.bind, "bind-address", "0.0.0.0", "IP address to listen on, with --secure-port; in place of --listen")
	fs.IntVar(&f.port, "secure-port", 6443, "port to listen on, with --bind-address; in place of --listen")
}

// options fills in o from the flags; changed reports whether a flag was set on the
// command line. It returns the range of the services' addresses, serviceCIDR by
// --service-cidr.
func (f *apiServerFlags) options(o *cluster.Options, serviceCIDR string, changed func(string) bool) (string, error) {
	var errs []error
	if changed("bind-address") || changed("secure-port") {
		if changed("listen") {
			errs = append(errs, errors.New("--listen and --bind-address with --secure-port say the same: give one of both"))
		}
		if net.ParseIP(f.bind) == nil && f.bind != "" {
			errs = append(errs, fmt.Errorf("--bind-address %q: give an IP address", f.bind))
		}
		if f.port < 1 || f.port > 65535 {
			errs = append(errs, fmt.Errorf("--secure-port %d must be between 1 and 65535, inclusive. It cannot be turned off with 0", f.port))
		}
		o.Listen = net.JoinHostPort(f.bind, strconv.Itoa(f.port))
	}
	if f.serviceRange != "" {
		if changed("service-cidr") {
			errs = append(errs, errors.New("--service-cidr and --service-cluster-ip-range say the same: give one of both"))
		}
		serviceCIDR = f.serviceRange
	}
	o.Features = f.gates.given
	return serviceCIDR, errors.Join(errs...)
}

// profileContention has the process note how long its goroutines wait for locks.
func (f *serverFlags) profileContention() {
	if !f.API.NoProfiling && f.kube.contention {
		runtime.SetBlockProfileRate(1)
	}
}
