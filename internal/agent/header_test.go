package agent

import (
	"net/http"
	"reflect"
	"testing"

	"github.com/spf13/pflag"

	"keelson.dev/keelson/internal/node/kubeletconfig"
)

// TestStaticPodHeader checks that the headers of a kubelet's configuration are those of the requests for
// manifests, whatever is in them.
func TestStaticPodHeader(t *testing.T) {
	var o Options
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	o.AddFlags(fs)
	fields := kubeletconfig.Fields{"staticPodURL": "https://example.com/pods", "staticPodURLHeader": map[string]any{
		"Authorization": []any{"Basic eDp5"}, "X-List": []any{`a, "b"`, "c:d"}}}
	if without, err := fields.Apply(fs); err != nil || len(without) > 0 {
		t.Fatal(without, err)
	}
	h, err := o.staticPodHeader()
	want := http.Header{"Authorization": {"Basic eDp5"}, "X-List": {`a, "b"`, "c:d"}}
	if err != nil || !reflect.DeepEqual(h, want) || o.StaticPodURL != "https://example.com/pods" {
		t.Errorf("%q %v (%v), want %v", o.StaticPodURL, h, err, want)
	}
	for _, text := range []string{"none", ": x"} {
		o.StaticPodHeaders = []string{text}
		if _, err := o.staticPodHeader(); err == nil {
			t.Errorf("header %q is taken", text)
		}
	}
}
