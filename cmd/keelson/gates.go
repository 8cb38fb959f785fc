package main

import (
	"fmt"
	"strconv"
	"strings"

	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/component-base/featuregate"
)

// featureGates is --feature-gates: Keelson does what v1.37 does with every gate at
// its default, and takes those gates that its libraries know and that say so.
type featureGates struct{ given []string }

// Set implements pflag.Value.
func (g *featureGates) Set(v string) error {
	for pair := range strings.SplitSeq(v, ",") {
		name, text, ok := strings.Cut(strings.TrimSpace(pair), "=")
		name = strings.TrimPrefix(name, "kube:")
		if pair == "" {
			continue
		}
		if !ok {
			return fmt.Errorf("missing bool value for %s", pair)
		}
		on, err := strconv.ParseBool(strings.TrimSpace(text))
		if err != nil {
			return fmt.Errorf("invalid value of %s=%s, err: %w", name, text, err)
		}
		spec, known := utilfeature.DefaultMutableFeatureGate.GetAll()[featuregate.Feature(name)]
		switch {
		case !known:
			return fmt.Errorf("%s=%t: Keelson has no feature gates; it does what v1.37 does with all gates at their defaults: leave it out", name, on)
		case spec.Default != on:
			return fmt.Errorf("%s=%t: Keelson has no feature gates; it does what v1.37 does with all gates at their defaults, which is %s=%t: leave it out", name, on, name, spec.Default)
		}
		g.given = append(g.given, name+"="+strconv.FormatBool(on))
	}
	return nil
}

// String implements pflag.Value.
func (g *featureGates) String() string { return strings.Join(g.given, ",") }

// Type implements pflag.Value.
func (g *featureGates) Type() string { return "mapStringBool" }
