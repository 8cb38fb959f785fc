package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/component-base/featuregate"

	"keelson.dev/keelson/internal/apiserver/features"
)

// alwaysOn are v1.37's gates that Keelson has on and cannot switch off, besides those
// that its libraries know; alwaysOff are those whose features it does not have.
var (
	alwaysOn = strings.Fields(`
		CSIServiceAccountTokenSecrets ClusterTrustBundle ClusterTrustBundleProjection ContainerRestartRules DRAAdminAccess
		DRADeviceTaintRules DRADeviceTaints DRAPrioritizedList DRAResourceClaimDeviceStatus EnvFiles ExternalServiceAccountTokenSigner
		HPAConfigurableTolerance HPAScaleToZero HostnameOverride ImageVolume InPlacePodVerticalScaling JobManagedBy MutableCSINodeAllocatableCount
		MultiCIDRServiceAllocator NodeDeclaredFeatures PodCertificateRequest PodLevelResources PodObservedGenerationTracking
		PodReadyToStartContainersCondition PreferSameTrafficDistribution ProcMountType RelaxedServiceNameValidation StorageVersionMigrator
		UserNamespacesSupport`)
	alwaysOff = strings.Fields(`
		GangScheduling GenericWorkload NativeHistograms PodAndContainerStatsFromCRI`)
)

// featureGates is --feature-gates: Keelson does what v1.37 does with every gate at its
// default; a few can be switched.
type featureGates struct{ given features.Gates }

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
		if err := allowGate(name, on); err != nil {
			return err
		}
		if g.given == nil {
			g.given = features.Gates{}
		}
		g.given[name] = on
	}
	return nil
}

// allowGate returns an error if a gate cannot have the value.
func allowGate(name string, on bool) error {
	standard := true
	switch spec, known := utilfeature.DefaultMutableFeatureGate.GetAll()[featuregate.Feature(name)]; {
	case slices.Contains(features.Switchable(), name):
		return nil
	case slices.Contains(alwaysOff, name):
		standard = false
	case slices.Contains(alwaysOn, name):
	case known:
		standard = spec.Default
	default:
		return fmt.Errorf("unrecognized feature gate: %s: Keelson switches %s, and takes the others of v1.37 that it knows at their defaults", name, strings.Join(features.Switchable(), ", "))
	}
	switch {
	case on == standard:
		return nil
	case on:
		return fmt.Errorf("%s=%t: Keelson does not have this feature, which is off by default in v1.37: leave it out", name, on)
	}
	return fmt.Errorf("%s=%t: Keelson always has this feature, which is on by default in v1.37: leave it out", name, on)
}

// String implements pflag.Value.
func (g *featureGates) String() string {
	var out []string
	for name, on := range g.given {
		out = append(out, name+"="+strconv.FormatBool(on))
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}

// Type implements pflag.Value.
func (g *featureGates) Type() string { return "mapStringBool" }
