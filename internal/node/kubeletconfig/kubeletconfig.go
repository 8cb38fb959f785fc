// Package kubeletconfig reads the configuration file of a kubelet, with its drop-ins,
// and sets a node's flags by it
// (https://kubernetes.io/docs/tasks/administer-cluster/kubelet-config-file/).
package kubeletconfig

import (
	"cmp"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	v1 "k8s.io/api/core/v1"
	kubelet "k8s.io/kubelet/config/v1beta1"
	"sigs.k8s.io/yaml"

	"keelson.dev/keelson/internal/node/eviction"
)

// Fields holds the fields that a configuration sets, by their names in JSON.
type Fields map[string]any

// Load reads a configuration file and the drop-ins (*.conf) of a folder, in the order
// of their names, each of which is merged into what was before it. Either may be "".
func Load(file, dir string) (Fields, error) {
	var files []string
	if file != "" {
		files = append(files, file)
	}
	if dir != "" {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && filepath.Ext(path) == ".conf" {
				files = append(files, path)
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("the kubelet configurations in %s: %w", dir, err)
		}
	}
	all := []byte("{}")
	for _, f := range files {
		b, err := read(f)
		if err != nil {
			return nil, fmt.Errorf("the kubelet configuration %s: %w", f, err)
		}
		if all, err = jsonpatch.MergePatch(all, b); err != nil {
			return nil, fmt.Errorf("merging the kubelet configuration %s: %w", f, err)
		}
	}
	out := Fields{}
	return out, json.Unmarshal(all, &out)
}

// read returns one file as JSON, having checked its kind and its fields.
func read(file string) ([]byte, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var c kubelet.KubeletConfiguration
	if err := yaml.UnmarshalStrict(b, &c); err != nil {
		return nil, err
	}
	if want := kubelet.SchemeGroupVersion.String(); c.APIVersion != want || c.Kind != "KubeletConfiguration" {
		return nil, fmt.Errorf("it is a %s of %s, wanted a KubeletConfiguration of %s", c.Kind, c.APIVersion, want)
	}
	return yaml.YAMLToJSON(b)
}

// Flags returns the names of the flags that fields set.
func Flags() (names []string) {
	for _, does := range fields {
		if does.flag != "" {
			names = append(names, does.flag)
		}
	}
	return names
}

// Apply sets the flags of the sets by the fields, save for those that are set already:
// what the command line says counts. It returns what is to be said of fields that have
// no effect, in the order of their names.
func (f Fields) Apply(sets ...*pflag.FlagSet) (without []string, err error) {
	given, err := f.derive()
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if name == "apiVersion" || name == "kind" {
			continue
		}
		does := fields[name]
		if does.flag == "" {
			if does.why != "" && !slices.ContainsFunc(does.only, func(v any) bool { return reflect.DeepEqual(v, given[name]) }) {
				without = append(without, name+": "+does.why)
			}
			continue
		}
		value, err := text(name, given[name])
		if err == nil {
			err = set(sets, does.flag, value)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s of the kubelet configuration: %w", name, err))
		}
	}
	return without, errors.Join(errs...)
}

// derive returns the fields with what some say of others: that images are pulled one
// after another, and that the default thresholds of evictions are to be added.
func (f Fields) derive() (Fields, error) {
	out := maps.Clone(f)
	if f["serializeImagePulls"] == true {
		if n, ok := f["maxParallelImagePulls"]; ok && n != 1.0 {
			return nil, errors.New("invalid configuration: maxParallelImagePulls cannot be larger than 1 unless SerializeImagePulls (--serialize-image-pulls) set to false")
		}
		out["maxParallelImagePulls"] = 1.0
	}
	if hard, ok := f["evictionHard"].(map[string]any); ok && f["mergeDefaultEvictionSettings"] == true {
		merged := map[string]any{}
		for signal, value := range eviction.DefaultHard {
			merged[signal] = value
		}
		maps.Copy(merged, hard)
		out["evictionHard"] = merged
	}
	return out, nil
}

// set sets a flag that the command line does not set.
func set(sets []*pflag.FlagSet, name, value string) error {
	for _, s := range sets {
		if f := s.Lookup(name); f != nil {
			if f.Changed {
				return nil
			}
			return s.Set(name, value)
		}
	}
	return fmt.Errorf("there is no flag --%s", name)
}

// text returns a field's value as its flag takes it.
func text(name string, value any) (string, error) {
	switch v := value.(type) {
	case string:
		return v, nil
	case bool:
		return strconv.FormatBool(v), nil
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), nil
	case []any:
		var parts []string
		for _, e := range v {
			s, err := element(name, e)
			if err != nil {
				return "", err
			}
			parts = append(parts, s)
		}
		return strings.Join(parts, separator(name)), nil
	case map[string]any:
		if name == "crashLoopBackOff" {
			return fmt.Sprint(cmp.Or(v["maxContainerRestartPeriod"], any("5m"))), nil
		}
		if name == "tracing" {
			b, err := json.Marshal(v)
			return string(b), err
		}
		if name == "memorySwap" {
			return fmt.Sprint(cmp.Or(v["swapBehavior"], any("NoSwap"))), nil
		}
		if name == "staticPodURLHeader" {
			return headers(v)
		}
		is := "="
		if name == "evictionHard" || name == "evictionSoft" {
			is = "<"
		}
		return pairs(v, is), nil
	}
	return "", fmt.Errorf("the value %v cannot be used", value)
}

// headers returns the headers of a request, each of which may have several values.
func headers(v map[string]any) (string, error) {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(v)) {
		values, _ := v[name].([]any)
		for _, value := range values {
			parts = append(parts, fmt.Sprint(name, ":", value))
		}
	}
	var b strings.Builder
	w := csv.NewWriter(&b) // as the flag reads it
	if err := w.Write(parts); err != nil {
		return "", err
	}
	w.Flush()
	return strings.TrimSuffix(b.String(), "\n"), w.Error()
}

// pairs returns names and values, comma separated.
func pairs(v map[string]any, is string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(v)) {
		parts = append(parts, fmt.Sprint(k, is, v[k]))
	}
	return strings.Join(parts, ",")
}

// separator is between the elements of a flag's list.
func separator(name string) string {
	if name == "reservedMemory" {
		return ";"
	}
	return ","
}

// element returns an element of a list as the list's flag takes it.
func element(name string, value any) (string, error) {
	m, _ := value.(map[string]any)
	switch name {
	case "registerWithTaints":
		b, err := json.Marshal(value)
		if err != nil {
			return "", err
		}
		var t v1.Taint
		if err := json.Unmarshal(b, &t); err != nil {
			return "", err
		}
		return t.ToString(), nil
	case "shutdownGracePeriodByPodPriority":
		return fmt.Sprintf("%.0f=%.0f", m["priority"], m["shutdownGracePeriodSeconds"]), nil
	case "reservedMemory":
		limits, _ := m["limits"].(map[string]any)
		return fmt.Sprint(m["numaNode"], ":", pairs(limits, "=")), nil
	}
	return fmt.Sprint(value), nil
}
