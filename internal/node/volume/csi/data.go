package csi

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/internal/node/statefile"
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
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	return statefile.Write(filepath.Join(dir, dataFile), d)
}

// read returns the record in dir, nil if there is none.
func read(dir string) (*published, error) {
	return statefile.Read[published](filepath.Join(dir, dataFile))
}

// all returns the volumes of the node's pods, by folder.
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
