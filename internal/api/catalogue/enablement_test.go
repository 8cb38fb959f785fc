package catalogue

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestRuntimeConfig(t *testing.T) {
	for _, c := range []struct{ config, hidden, shown, err string }{
		{"", "", "apps/v1/deployments", ""},
		{"api/all=false,v1=true", "apps/v1/deployments", "/v1/pods", ""},
		{"api/all=false,api/v1=true", "apps/v1/deployments", "/v1/pods", ""},
		{"api/all=false,api/ga=true", "storagemigration.k8s.io/v1beta1/storageversionmigrations", "apps/v1/deployments", ""},
		{"apps/v1=false,apps/v1/deployments=true", "apps/v1/daemonsets", "apps/v1/deployments", ""},
		{"apps/v1,api/legacy=true,apps/v1beta1=false", "", "apps/v1/deployments", ""},
		{"apps/v1beta1=true", "", "", `apps/v1beta1 is not served by this version of Keelson: of group "apps" it serves v1`},
		{"a/b/c/d=true", "", "", "runtime-config invalid key a/b/c/d"},
		{"apps=true", "", "", "runtime-config invalid key apps"},
	} {
		config := RuntimeConfig{}
		for pair := range strings.SplitSeq(c.config, ",") {
			if key, value, _ := strings.Cut(pair, "="); key != "" {
				config[key] = value
			}
		}
		hidden, err := config.Hidden(Builtin())
		if (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: got %v, want %q", c.config, err, c.err)
		}
		is := func(name string) bool {
			p := strings.Split(name, "/")
			return hidden.Has(schema.GroupVersionResource{Group: p[0], Version: p[1], Resource: p[2]})
		}
		if c.hidden != "" && !is(c.hidden) || c.shown != "" && is(c.shown) {
			t.Errorf("%s hides %v", c.config, hidden)
		}
	}
}
