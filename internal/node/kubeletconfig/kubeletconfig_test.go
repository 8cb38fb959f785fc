package kubeletconfig

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	kubelet "k8s.io/kubelet/config/v1beta1"

	"keelson.dev/keelson/internal/node/eviction"
)

const head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"

// folder has files of these texts.
func folder(t *testing.T, texts map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range texts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestApply(t *testing.T) {
	dir := folder(t, map[string]string{
		"config":       head + "maxPods: 50\nevictionHard: {memory.available: 1Gi, nodefs.available: 10%}\nkubeReserved: {cpu: 200m}\npodPidsLimit: 100\ncpuManagerPolicy: static\nreservedMemory: [{numaNode: 0, limits: {memory: 1Gi, hugepages-2Mi: 4Mi}}, {numaNode: 1, limits: {memory: 2Gi}}]\nfailSwapOn: false\n",
		"20-more.conf": head + "maxPods: 70\nregisterWithTaints: [{key: k, value: v, effect: NoSchedule}]\nallowedUnsafeSysctls: [a, b*]\n",
		"10-more.conf": head + "maxPods: 60\nevictionHard: {memory.available: 2Gi}\nimageMinimumGCAge: 5m\nstreamingConnectionIdleTimeout: 1h\nmemorySwap: {swapBehavior: LimitedSwap}\nmemoryThrottlingFactor: 0.8\nseccompDefault: true\nshutdownGracePeriodByPodPriority: [{priority: 2000000000, shutdownGracePeriodSeconds: 10}]\n",
		"ignored.yaml": "not: read",
	})
	loaded, err := Load(filepath.Join(dir, "config"), dir)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	for _, name := range Flags() {
		fs.Func(name, "", func(v string) error { got[name] = v; return nil })
	}
	if err := fs.Set("pod-max-pids", "7"); err != nil { // by the command line
		t.Fatal(err)
	}
	without, err := loaded.Apply(pflag.NewFlagSet("", pflag.ContinueOnError), fs)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"streamingConnectionIdleTimeout: streams end with their clients, or with the runtime"}; !slices.Equal(without, want) {
		t.Errorf("without effect: %q, want %q", without, want)
	}
	want := map[string]string{"max-pods": "70", "eviction-hard": "memory.available<2Gi,nodefs.available<10%", "kube-reserved": "cpu=200m", "pod-max-pids": "7",
		"register-with-taints": "k=v:NoSchedule", "allowed-unsafe-sysctls": "a,b*", "minimum-image-ttl-duration": "5m", "cpu-manager-policy": "static",
		"memory-swap-behavior": "LimitedSwap", "memory-throttling-factor": "0.8", "seccomp-default": "true", "shutdown-grace-period-by-pod-priority": "2000000000=10",
		"reserved-memory": "0:hugepages-2Mi=4Mi,memory=1Gi;1:memory=2Gi"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("flags %q, want %q", got, want)
	}
}

func TestLoadRefuses(t *testing.T) {
	for text, want := range map[string]string{
		head + "maxPod: 50\n":       `unknown field "maxPod"`,
		head + "maxPods: many\n":    "cannot unmarshal",
		"kind: Pod\n":               `wanted a KubeletConfiguration of kubelet.config.k8s.io/v1beta1`,
		head + "port: 1\nport: 2\n": `"port" already set`,
	} {
		dir := folder(t, map[string]string{"config": text})
		if _, err := Load(filepath.Join(dir, "config"), ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if _, err := Load("", "/no/such/folder"); err == nil {
		t.Error("a folder that is not there")
	}
}

// TestFields checks that every field of the configuration has its effect, or a reason
// why it has none.
func TestFields(t *testing.T) {
	known := map[string]bool{}
	for i, c := 0, reflect.TypeFor[kubelet.KubeletConfiguration](); i < c.NumField(); i++ {
		name, _, _ := strings.Cut(c.Field(i).Tag.Get("json"), ",")
		if name == "" {
			continue // apiVersion and kind
		}
		known[name] = true
		does, ok := fields[name]
		derived := name == "serializeImagePulls" || name == "mergeDefaultEvictionSettings"
		if !ok || (does.flag == "") != (does.why != "") && !derived {
			t.Errorf("%s sets no flag, and nothing says why: %+v", name, does)
		}
	}
	for name := range fields {
		if !known[name] {
			t.Errorf("%s is no field", name)
		}
	}
}

// TestDefaults checks that a configuration of upstream's defaults for what a node does in
// one way only is told nothing of.
func TestDefaults(t *testing.T) {
	f := Fields{"enableServer": true, "address": "0.0.0.0", "readOnlyPort": 0.0, "cgroupsPerQOS": true, "authentication": object("anonymous", object("enabled", false)),
		"authorization": object("mode", "Webhook"), "runtimeRequestTimeout": "2m0s", "nodeLeaseDurationSeconds": 40.0, "enforceNodeAllocatable": []any{"pods"}, "userNamespaces": object("idsPerPod", 65536.0)}
	if without, err := f.Apply(); err != nil || len(without) > 0 {
		t.Errorf("%q, %v", without, err)
	}
}

func TestDerive(t *testing.T) {
	if _, err := (Fields{"serializeImagePulls": true, "maxParallelImagePulls": 2.0}).derive(); err == nil {
		t.Error("several pulls at one time, one after another")
	}
	f, err := Fields{"serializeImagePulls": true, "mergeDefaultEvictionSettings": true, "evictionHard": object("memory.available", "1Gi")}.derive()
	hard, _ := f["evictionHard"].(map[string]any)
	if err != nil || f["maxParallelImagePulls"] != 1.0 || hard["memory.available"] != "1Gi" || hard["nodefs.available"] != eviction.DefaultHard["nodefs.available"] {
		t.Errorf("%v, %v", f, err)
	}
}
