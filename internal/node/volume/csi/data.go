package csi

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
	"k8s.io/apimachinery/pkg/types"
)

// dataFile is the file beside a target; its keys are upstream's.
const dataFile = "vol_data.json"

// published is the record of a pod's volume, by which it is unpublished.
type published struct {
	Driver     string `json:"driverName"`
	Handle     string `json:"volumeHandle"`
	Volume     string `json:"specVolID"`
	Attachment string `json:"attachmentID,omitempty"`
	Node       string `json:"nodeName"`
	Lifecycle  string `json:"volumeLifecycleMode"`
	// Block, Target and Staging are our own: where the volume is. Staging is
	// empty if it is not staged.
	Block   bool   `json:"keelsonBlock,omitempty"`
	Target  string `json:"keelsonTarget,omitempty"`
	Staging string `json:"keelsonStaging,omitempty"`
}

func (d *published) write(dir string) error {
	text, err := json.Marshal(d)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	return renameio.WriteFile(filepath.Join(dir, dataFile), text, 0o600)
}

// read returns the record in dir, nil if there is none. A file that cannot be
// decoded is damaged: files are written whole.
func read(dir string) (*published, error) {
	text, err := os.ReadFile(filepath.Join(dir, dataFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	d := &published{}
	if err := json.Unmarshal(text, d); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", filepath.Join(dir, dataFile), err)
	}
	return d, nil
}

// all returns what the pods of the node have, by folder.
func (p *Plugin) all() (map[string]*published, error) {
	files, err := filepath.Glob(filepath.Join(p.Root, "pods", "*", "volumes", "kubernetes.io~csi", "*", dataFile))
	if err != nil {
		return nil, err
	}
	out := map[string]*published{}
	for _, f := range files {
		if d, err := read(filepath.Dir(f)); err == nil && d != nil {
			out[filepath.Dir(f)] = d
		}
	}
	return out, nil
}

// used reports whether a pod other than the one of dir has the volume.
func (p *Plugin) used(driver, handle, dir string) (bool, error) {
	all, err := p.all()
	for other, d := range all {
		if other != dir && d.Driver == driver && d.Handle == handle {
			return true, err
		}
	}
	return false, err
}

// folder returns the folder of what the drivers have on the node.
func (p *Plugin) folder() string { return filepath.Join(p.Root, "plugins", "kubernetes.io", "csi") }

// staging returns where a volume is staged.
func (p *Plugin) staging(driver, handle, volume string, block bool) string {
	if block {
		return filepath.Join(p.folder(), "volumeDevices", "staging", volume)
	}
	return filepath.Join(p.folder(), driver, fmt.Sprintf("%x", sha256.Sum256([]byte(handle))), "globalmount")
}

// target returns where a volume is published for a pod.
func (p *Plugin) target(dir, volume string, pod types.UID, block bool) string {
	if block {
		return filepath.Join(p.folder(), "volumeDevices", "publish", volume, string(pod))
	}
	return filepath.Join(dir, "mount")
}
