package convert

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/node/beneath"
	"keelson.dev/keelson/internal/node/volume"
)

// envFileMax is the greatest size, in bytes, of a file of variables: a container
// wrote it, and the kernel accepts no more for a process.
const envFileMax = 2 << 20

// fileValue returns the value of a variable in a file of one of the pod's volumes,
// which the container need not mount; false if there is none and it is optional
// (KEP-3721).
func fileValue(volumes map[string]volume.Mounted, r *v1.FileKeySelector) (string, bool, error) {
	vol, ok := volumes[r.VolumeName]
	if !ok {
		return "", false, fmt.Errorf("cannot find volume %q of the file of variables %q", r.VolumeName, r.Path)
	}
	optional := ptr.Deref(r.Optional, false)
	text, err := beneath.ReadFile(vol.HostPath, r.Path, envFileMax)
	switch {
	case errors.Is(err, fs.ErrNotExist) && optional:
		return "", false, nil
	case err != nil:
		return "", false, fmt.Errorf("failed to open environment variable file %q of volume %q: %w", r.Path, r.VolumeName, err)
	}
	values, err := parseEnvFile(string(text))
	if err != nil {
		return "", false, fmt.Errorf("environment variable file %q of volume %q: %w", r.Path, r.VolumeName, err)
	}
	v, ok := values[r.Key]
	if !ok && !optional {
		return "", false, fmt.Errorf("environment variable key %q not found in file %q of volume %q", r.Key, r.Path, r.VolumeName)
	}
	return v, ok, nil
}

// parseEnvFile reads lines of NAME='value'. The value is what is between the
// quotes, literally, and may go over several lines; empty lines and lines that
// start with # are ignored. Of two values of a name the later one counts, as for
// a shell.
func parseEnvFile(text string) (map[string]string, error) {
	const blanks = " \t\r"
	out := map[string]string{}
	for line := 1; text != ""; line++ {
		text = strings.TrimLeft(text, blanks)
		rest, next, _ := strings.Cut(text, "\n")
		if rest == "" || rest[0] == '#' {
			text = next
			continue
		}
		name, value, found := strings.Cut(rest, "=")
		if !found {
			return nil, fmt.Errorf("line %d: wanted NAME='value', found no '='", line)
		}
		name = strings.TrimRight(name, blanks)
		if why := validation.IsRelaxedEnvVarName(name); len(why) > 0 {
			return nil, fmt.Errorf("line %d: %q is no variable's name: %s", line, name, why[0])
		}
		value = strings.TrimLeft(value, blanks)
		if !strings.HasPrefix(value, "'") {
			return nil, fmt.Errorf("line %d: the value of %s has to be in single quotes", line, name)
		}
		text = text[len(rest)-len(value)+1:]
		value, text, found = strings.Cut(text, "'")
		if !found {
			return nil, fmt.Errorf("line %d: the value of %s has no closing single quote", line, name)
		}
		rest, text, _ = strings.Cut(text, "\n")
		if strings.Trim(rest, blanks) != "" {
			return nil, fmt.Errorf("line %d: nothing may follow the closing single quote of the value of %s", line, name)
		}
		out[name] = value
		line += strings.Count(value, "\n")
	}
	return out, nil
}
