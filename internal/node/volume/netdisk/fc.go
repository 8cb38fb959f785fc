package netdisk

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/node/volume"
)

// fc is a disk of a Fibre Channel network: the LUN of targets, or one by its own names.
type fc struct {
	WWNs  []string `json:"wwns,omitempty"`
	LUN   int32    `json:"lun,omitempty"`
	WWIDs []string `json:"wwids,omitempty"`
}

// overFibre is Fibre Channel.
type overFibre struct{}

func (overFibre) source(s *volume.Spec) (*disk, string, bool, *v1.SecretReference) {
	c := s.Volume.FC
	if s.Persistent != nil {
		c = s.Persistent.Spec.FC
	}
	if c == nil {
		return nil, "", false, nil
	}
	f := &fc{WWNs: c.TargetWWNs, LUN: ptr.Deref(c.Lun, 0), WWIDs: c.WWIDs}
	id := strings.Join(f.WWIDs, "-")
	if len(f.WWNs) > 0 {
		id = strings.Join(f.WWNs, "-") + "-lun-" + strconv.Itoa(int(f.LUN))
	}
	return &disk{ID: strings.NewReplacer("/", "_").Replace(id), FC: f}, cmp.Or(c.FSType, "ext4"), c.ReadOnly, nil
}

// attach looks for the disk, and once more after the SCSI hosts have looked for new ones.
func (overFibre) attach(_ context.Context, m *machine, d *disk, _ map[string]string) (string, error) {
	for _, rescanned := range []bool{false, true} {
		if rescanned {
			hosts, err := filepath.Glob(m.root + "/sys/class/scsi_host/*/scan")
			if err != nil {
				return "", err
			}
			for _, h := range hosts {
				_ = m.tell(strings.TrimPrefix(h, m.root), "- - -") // a host that cannot has no disk
			}
		}
		single := ""
		for _, path := range d.FC.paths(m) {
			if mapped := m.multipath(path); mapped != "" {
				return mapped, nil
			}
			single = cmp.Or(single, path)
		}
		if single != "" && rescanned { // the first look is for multipathd's only
			return single, nil
		}
	}
	return "", errors.New("no fc disk found")
}

// paths returns the devices of the disk.
func (f *fc) paths(m *machine) (out []string) {
	folder, names := "by-path", []string(nil)
	for _, wwn := range f.WWNs {
		names = append(names, `(pci-.*-fc|fc)-0x`+regexp.QuoteMeta(strings.ToLower(wwn))+`-lun-`+strconv.Itoa(int(f.LUN)))
	}
	if len(f.WWNs) == 0 {
		folder = "by-id"
		for _, wwid := range f.WWIDs {
			names = append(names, `scsi-`+regexp.QuoteMeta(strings.ReplaceAll(wwid, " ", "_")))
		}
	}
	entries, err := os.ReadDir(m.root + "/dev/disk/" + folder)
	if err != nil {
		return nil
	}
	for _, n := range names {
		r, err := regexp.Compile("^" + n + "$")
		if err != nil {
			continue
		}
		for _, e := range entries {
			if r.MatchString(e.Name()) {
				out = append(out, filepath.Join(m.root+"/dev/disk", folder, e.Name()))
			}
		}
	}
	return out
}

// detach removes the disk's device.
func (overFibre) detach(ctx context.Context, m *machine, d *disk, _ []*disk) error {
	if d.Device == "" {
		return nil
	}
	return m.forget(ctx, d.Device)
}
