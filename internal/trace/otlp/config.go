package otlp

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/apis/apiserver"
	apiserverinstall "k8s.io/apiserver/pkg/apis/apiserver/install"
	tracing "k8s.io/component-base/tracing/api/v1"
)

// million is the unit of samplingRatePerMillion.
const million = 1_000_000

// ReadConfig returns the options that a file with a TracingConfiguration says, of any
// version of apiserver.config.k8s.io that has one.
func ReadConfig(file string) (Options, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return Options{}, fmt.Errorf("tracing-config-file %s does not exist", file)
	} else if err != nil {
		return Options{}, fmt.Errorf("failed to read tracing config: unable to read tracing configuration from %q: %w", file, err)
	}
	scheme := runtime.NewScheme()
	apiserverinstall.Install(scheme)
	var c apiserver.TracingConfiguration
	if err := runtime.DecodeInto(serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDecoder(), data, &c); err != nil {
		return Options{}, fmt.Errorf("failed to read tracing config: unable to decode tracing configuration data: %w", err)
	}
	if errs := tracing.ValidateTracingConfiguration(&c.TracingConfiguration, nil, nil); len(errs) > 0 {
		return Options{}, fmt.Errorf("failed to validate tracing configuration: %w", errs.ToAggregate())
	}
	return fromConfig(&c.TracingConfiguration), nil
}

// ParseConfig returns the options that the section tracing of a KubeletConfiguration says,
// in JSON.
func ParseConfig(text string) (Options, error) {
	var c tracing.TracingConfiguration
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return Options{}, fmt.Errorf("invalid configuration: tracing: %w", err)
	}
	if errs := tracing.ValidateTracingConfiguration(&c, nil, field.NewPath("tracing")); len(errs) > 0 {
		return Options{}, fmt.Errorf("invalid configuration: %w", errs.ToAggregate())
	}
	return fromConfig(&c), nil
}

// fromConfig returns the options that a valid TracingConfiguration says: spans go by gRPC
// without TLS, to port 4317 of this machine where no endpoint is named, and of those traces
// only that clients have sampled, where there is no rate.
func fromConfig(c *tracing.TracingConfiguration) Options {
	o := Options{target: "localhost:4317"}
	if c.Endpoint != nil {
		o.target = *c.Endpoint
	}
	if c.SamplingRatePerMillion != nil {
		o.Sampling = float64(*c.SamplingRatePerMillion) / million
	}
	return o
}
