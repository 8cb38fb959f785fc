package csi

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"
	v1 "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

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

// used reports whether a pod other than the one of dir has the volume. A record that
// is damaged may be of any volume of its folder's name.
func (p *Plugin) used(d *published, dir string) (bool, error) {
	files, err := filepath.Glob(filepath.Join(p.Root, "pods", "*", "volumes", "kubernetes.io~csi", "*", dataFile))
	if err != nil {
		return false, err
	}
	for _, f := range files {
		other := filepath.Dir(f)
		if other == dir {
			continue
		}
		o, err := read(other)
		if err != nil && filepath.Base(other) == d.Volume || err == nil && o != nil && o.Driver == d.Driver && o.Handle == d.Handle {
			return true, nil
		}
	}
	return false, nil
}

// rebuild makes the record of a folder anew whose file is damaged, from the
// PersistentVolume that the folder has its name of.
func (p *Plugin) rebuild(ctx context.Context, dir string) (*published, error) {
	pv, err := p.Client.CoreV1().PersistentVolumes().Get(ctx, filepath.Base(dir), metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	c := pv.Spec.CSI
	if c == nil {
		return nil, fmt.Errorf("volume %s is not of a CSI driver", pv.Name)
	}
	settings, err := p.settings(ctx, c.Driver)
	if err != nil {
		return nil, err
	}
	driver, err := p.driver(c.Driver)
	if err != nil {
		return nil, err
	}
	d := &published{Driver: c.Driver, Handle: c.VolumeHandle, Volume: pv.Name, Node: p.Node, Lifecycle: string(storage.VolumeLifecyclePersistent),
		Block: ptr.Deref(pv.Spec.VolumeMode, v1.PersistentVolumeFilesystem) == v1.PersistentVolumeBlock}
	d.Target = p.target(dir, d.Volume, podOf(dir), d.Block)
	if driver.can[csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME] {
		d.Staging = p.staging(d.Driver, d.Handle, d.Volume, d.Block)
	}
	if attaches(settings) {
		d.Attachment = attachment(d.Handle, d.Driver, p.Node)
	}
	return d, nil
}

// podOf returns the pod that a folder of a volume is of.
func podOf(dir string) types.UID {
	return types.UID(filepath.Base(filepath.Dir(filepath.Dir(filepath.Dir(dir)))))
}

// stagedFolder returns the folder of the record of what is staged.
func (p *Plugin) stagedFolder(d *published) string {
	if d.Block {
		return filepath.Join(p.folder(), "volumeDevices", d.Volume, "data")
	}
	return filepath.Dir(d.Staging)
}

// allStaged returns the records of what is, or may be, staged.
func (p *Plugin) allStaged() (out []*published) {
	for _, pattern := range []string{filepath.Join("*", "*", dataFile), filepath.Join("volumeDevices", "*", "data", dataFile)} {
		files, err := filepath.Glob(filepath.Join(p.folder(), pattern))
		if err != nil {
			continue
		}
		for _, f := range files {
			if d, err := read(filepath.Dir(f)); err == nil && d != nil && d.Staging != "" {
				out = append(out, d)
			}
		}
	}
	return out
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
