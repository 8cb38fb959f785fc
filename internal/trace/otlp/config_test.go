package otlp

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// TestConfig reads files with a TracingConfiguration.
func TestConfig(t *testing.T) {
	head := func(version string) string {
		return "apiVersion: apiserver.config.k8s.io/" + version + "\nkind: TracingConfiguration\n"
	}
	for name, c := range map[string]struct {
		text, target string
		sampling     float64
		err          string
	}{
		"v1beta1":            {head("v1beta1") + "endpoint: collector:4317\nsamplingRatePerMillion: 250000\n", "collector:4317", 0.25, ""},
		"v1alpha1":           {head("v1alpha1") + "endpoint: unix:///run/collector\n", "unix:///run/collector", 0, ""},
		"v1, with nothing":   {head("v1"), "localhost:4317", 0, ""},
		"no such version":    {head("v2"), "", 0, `failed to read tracing config: unable to decode tracing configuration data: no kind "TracingConfiguration" is registered for version "apiserver.config.k8s.io/v2"`},
		"another kind":       {"apiVersion: apiserver.config.k8s.io/v1beta1\nkind: AuthorizationConfiguration\n", "", 0, "failed to read tracing config: unable to decode tracing configuration data: "},
		"no such field":      {head("v1beta1") + "endpoints: a\n", "", 0, `strict decoding error: unknown field "endpoints"`},
		"twice":              {head("v1beta1") + "endpoint: a\nendpoint: b\n", "", 0, `key "endpoint" already set`},
		"a negative rate":    {head("v1beta1") + "samplingRatePerMillion: -1\n", "", 0, "failed to validate tracing configuration: samplingRatePerMillion: Invalid value: -1: sampling rate must be positive"},
		"more than all":      {head("v1beta1") + "samplingRatePerMillion: 1000001\n", "", 0, "failed to validate tracing configuration: samplingRatePerMillion: Invalid value: 1000001: sampling rate per million must be less than or equal to one million"},
		"a scheme of no use": {head("v1beta1") + "endpoint: https://collector:4317\n", "", 0, "unsupported scheme: https.  Options are none, dns, unix, or unix-abstract."},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "tracing.yaml")
			if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			o, err := ReadConfig(file)
			switch {
			case c.err == "" && (err != nil || o.target != c.target || o.Sampling != c.sampling):
				t.Errorf("%+v (%v), want %s and %v", o, err, c.target, c.sampling)
			case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
				t.Errorf("%v, want %s", err, c.err)
			}
		})
	}
}

// TestFlags gives flags that contradict one another.
func TestFlags(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tracing.yaml")
	if err := os.WriteFile(file, []byte("apiVersion: apiserver.config.k8s.io/v1beta1\nkind: TracingConfiguration\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for flags, want := range map[string]string{
		"--tracing-config-file=" + file:                                 "",
		"--tracing-config-file=" + file + " --otlp-endpoint=grpc://a:1": "--tracing-config-file and --otlp-endpoint: both",
		"--tracing-config-file=" + file + " --otlp-sampling=1":          "--tracing-config-file and --otlp-sampling: both",
		"--tracing-config-file=" + file + ".none":                       "tracing-config-file " + file + ".none does not exist",
		"--otlp-endpoint=grpc://a:1 --otlp-sampling=0.5":                "",
		"--otlp-sampling=2":                                             "want a share",
		"--otlp-endpoint=a:1":                                           "want the URL of a collector",
	} {
		var o Options
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		o.AddFlags(fs)
		if err := fs.Parse(strings.Fields(flags)); err != nil {
			t.Fatal(err)
		}
		if err := o.Validate(); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", flags, err, want)
		}
	}
}
