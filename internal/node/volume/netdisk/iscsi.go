package netdisk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/internal/node/volume"
)

// iscsi is a disk of an iSCSI target.
type iscsi struct {
	// Portals are addresses of the target, host:port.
	Portals []string `json:"portals"`
	IQN     string   `json:"iqn"`
	LUN     int32    `json:"lun"`
	// Interface is iscsiadm's, by which the target is reached: that of the volume,
	// or one of its own where Initiator is set.
	Interface string `json:"interface"`
	// Original is the interface that the volume names.
	Original  string `json:"original,omitempty"`
	Initiator string `json:"initiator,omitempty"`
	// Discovery and Session say what is authenticated by CHAP.
	Discovery bool `json:"discovery,omitempty"`
	Session   bool `json:"session,omitempty"`
}

// overIP is iSCSI.
type overIP struct{}

func (overIP) source(s *volume.Spec) (*disk, string, bool, *v1.SecretReference) {
	i := &iscsi{}
	var fsType string
	var readOnly bool
	var secret *v1.SecretReference
	var portals []string
	var initiator *string
	if pv := s.Persistent; pv != nil {
		c := pv.Spec.ISCSI
		if c == nil {
			return nil, "", false, nil
		}
		portals, initiator, secret = append([]string{c.TargetPortal}, c.Portals...), c.InitiatorName, c.SecretRef
		i.IQN, i.LUN, i.Original, i.Discovery, i.Session = c.IQN, c.Lun, c.ISCSIInterface, c.DiscoveryCHAPAuth, c.SessionCHAPAuth
		fsType, readOnly = c.FSType, c.ReadOnly
	} else {
		c := s.Volume.ISCSI
		if c == nil {
			return nil, "", false, nil
		}
		portals, initiator = append([]string{c.TargetPortal}, c.Portals...), c.InitiatorName
		if c.SecretRef != nil {
			secret = &v1.SecretReference{Name: c.SecretRef.Name}
		}
		i.IQN, i.LUN, i.Original, i.Discovery, i.Session = c.IQN, c.Lun, c.ISCSIInterface, c.DiscoveryCHAPAuth, c.SessionCHAPAuth
		fsType, readOnly = c.FSType, c.ReadOnly
	}
	for _, p := range portals {
		if _, _, err := net.SplitHostPort(p); err != nil {
			p = net.JoinHostPort(strings.Trim(p, "[]"), "3260")
		}
		i.Portals = append(i.Portals, p)
	}
	i.Original = cmp.Or(i.Original, "default")
	i.Interface = i.Original
	if initiator != nil {
		i.Initiator = *initiator
		i.Interface = i.Portals[0] + ":" + s.Name()
	}
	if !i.Discovery && !i.Session {
		secret = nil
	}
	id := fmt.Sprintf("iface-%s/%s-%s-lun-%d", i.Interface, i.Portals[0], i.IQN, i.LUN)
	return &disk{ID: id, ISCSI: i}, cmp.Or(fsType, "ext4"), readOnly, secret
}

// The keys of a secret, which are iscsiadm's too.
var (
	discoveryKeys = []string{"discovery.sendtargets.auth.username", "discovery.sendtargets.auth.password", "discovery.sendtargets.auth.username_in", "discovery.sendtargets.auth.password_in"}
	sessionKeys   = []string{"node.session.auth.username", "node.session.auth.password", "node.session.auth.username_in", "node.session.auth.password_in"}
)

// deviceWait is how long a disk has to appear after a login.
const deviceWait = 10 * time.Second

var transportName = regexp.MustCompile(`(?m)^iface\.transport_name = (.*)$`)

// attach logs in to the target by all its portals, and returns the disk's device; that
// of multipathd where the paths are more than one and it runs.
func (overIP) attach(ctx context.Context, m *machine, d *disk, secret map[string]string) (string, error) {
	i := d.ISCSI
	shown, err := m.run(ctx, "iscsiadm", "-m", "iface", "-I", i.Original, "-o", "show")
	if err != nil {
		return "", fmt.Errorf("iscsi: could not read iface %s error: %w", i.Original, err)
	}
	name := transportName.FindStringSubmatch(shown)
	if name == nil {
		return "", fmt.Errorf("Could not parse iface file for %s", i.Original) //nolint:staticcheck // upstream's message
	}
	if i.Initiator != "" {
		if err := i.clone(ctx, m, shown); err != nil {
			return "", err
		}
	}
	var found []string
	var errs []error
	for _, portal := range i.Portals {
		path, err := i.connect(ctx, m, portal, strings.TrimSpace(name[1]), secret)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		found = append(found, path)
	}
	if len(found) == 0 {
		return "", fmt.Errorf("failed to get any path for iscsi disk, last err seen:\n%w", errors.Join(errs...))
	}
	for _, path := range found {
		if mapped := m.multipath(path); mapped != "" {
			return mapped, nil
		}
	}
	return found[0], nil
}

// clone makes the interface with the volume's own initiator, like the one that was shown.
func (i *iscsi) clone(ctx context.Context, m *machine, shown string) error {
	if _, err := m.run(ctx, "iscsiadm", "-m", "iface", "-I", i.Interface, "-o", "new"); err != nil && !strings.Contains(err.Error(), "exit status 15") { // it exists, and has a session
		return fmt.Errorf("iscsi: failed to create new iface: %s error: %w", i.Interface, err)
	}
	for line := range strings.Lines(shown) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), " = ")
		if !ok || !strings.HasPrefix(key, "iface.") || key == "iface.iscsi_ifacename" {
			continue
		}
		if key == "iface.initiatorname" {
			value = i.Initiator
		} else if value == "<empty>" {
			continue
		}
		if _, err := m.run(ctx, "iscsiadm", "-m", "iface", "-I", i.Interface, "-o", "update", "-n", key, "-v", value); err != nil {
			return fmt.Errorf("iscsi: failed to update iface records: %s error: %w", i.Interface, err)
		}
	}
	return nil
}

// connect logs in by a portal, if there is no session yet, and returns the path of the
// disk's device.
func (i *iscsi) connect(ctx context.Context, m *machine, portal, transport string, secret map[string]string) (string, error) {
	host, ok := i.host(m, portal)
	if !ok {
		if err := i.login(ctx, m, portal, secret); err != nil {
			return "", err
		}
		if host, ok = i.host(m, portal); !ok {
			return "", fmt.Errorf("iscsi: no session with portal %s after logging in", portal)
		}
	}
	// Only the disk that is wanted: the kernel is not to know others.
	if err := m.tell("/sys/class/scsi_host/"+host+"/scan", "0 0 "+strconv.Itoa(int(i.LUN))); err != nil {
		return "", err
	}
	path := fmt.Sprintf("/dev/disk/by-path/ip-%s-iscsi-%s-lun-%d", portal, i.IQN, i.LUN)
	if transport != "tcp" {
		path = fmt.Sprintf("/dev/disk/by-path/pci-*-ip-%s-iscsi-%s-lun-%d", portal, i.IQN, i.LUN)
	}
	limit := m.clock.Now().Add(deviceWait)
	for {
		all, err := filepath.Glob(m.root + path)
		if err != nil {
			return "", err
		}
		if len(all) > 0 {
			return all[0], nil
		}
		if !m.clock.Now().Before(limit) {
			return "", errors.New("Could not attach disk: Timeout after 10s") //nolint:staticcheck // upstream's message
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-m.clock.After(time.Second):
		}
	}
}

// login finds the target at a portal, and logs in.
func (i *iscsi) login(ctx context.Context, m *machine, portal string, secret map[string]string) error {
	discovery := func(args ...string) error {
		_, err := m.run(ctx, "iscsiadm", append([]string{"-m", "discoverydb", "-t", "sendtargets", "-p", portal, "-I", i.Interface}, args...)...)
		return err
	}
	node := func(args ...string) error {
		_, err := m.run(ctx, "iscsiadm", append([]string{"-m", "node", "-p", portal, "-T", i.IQN, "-I", i.Interface}, args...)...)
		return err
	}
	set := func(on func(...string) error, method string, keys []string) error {
		if err := on("-o", "update", "-n", method, "-v", "CHAP"); err != nil {
			return err
		}
		for _, k := range keys {
			if v := secret[k]; v != "" {
				if err := on("-o", "update", "-n", k, "-v", v); err != nil {
					return err
				}
			}
		}
		return nil
	}
	_ = discovery("-o", "new") // it may exist
	if i.Discovery {
		if err := set(discovery, "discovery.sendtargets.auth.authmethod", discoveryKeys); err != nil {
			return fmt.Errorf("iscsi: failed to update discoverydb to portal %s error: %w", portal, err)
		}
	}
	if err := discovery("--discover"); err != nil {
		return errors.Join(fmt.Errorf("iscsi: failed to sendtargets to portal %s: %w", portal, err), discovery("-o", "delete"))
	}
	if i.Session {
		if err := set(node, "node.session.auth.authmethod", sessionKeys); err != nil {
			return fmt.Errorf("iscsi: failed to update iscsi node to portal %s error: %w", portal, err)
		}
	}
	if err := node("--login"); err != nil {
		return errors.Join(fmt.Errorf("iscsi: failed to attach disk: Error: %w", err), node("-o", "delete"))
	}
	// A machine that starts does not wait for the disks of pods.
	return node("-o", "update", "-n", "node.startup", "-v", "manual")
}

// host returns the name of the SCSI host of the session with the target by a portal.
func (i *iscsi) host(m *machine, portal string) (string, bool) {
	targets, _ := filepath.Glob(m.root + "/sys/class/iscsi_session/session*/targetname")
	for _, t := range targets {
		text, err := os.ReadFile(t)
		if err != nil || strings.TrimSpace(string(text)) != i.IQN {
			continue
		}
		session := filepath.Base(filepath.Dir(t))
		connections, _ := filepath.Glob(m.root + "/sys/class/iscsi_connection/connection" + strings.TrimPrefix(session, "session") + ":*")
		if !slices.ContainsFunc(connections, func(c string) bool {
			for _, kind := range []string{"persistent_", ""} {
				address, err := os.ReadFile(filepath.Join(c, kind+"address"))
				port, other := os.ReadFile(filepath.Join(c, kind+"port"))
				if err == nil && other == nil && net.JoinHostPort(strings.TrimSpace(string(address)), strings.TrimSpace(string(port))) == portal {
					return true
				}
			}
			return false
		}) {
			continue
		}
		device, err := filepath.EvalSymlinks(filepath.Join(filepath.Dir(t), "device"))
		if err != nil {
			continue
		}
		for _, part := range strings.Split(device, "/") {
			if rest, ok := strings.CutPrefix(part, "host"); ok {
				if _, err := strconv.Atoi(rest); err == nil {
					return part, true
				}
			}
		}
	}
	return "", false
}

// detach removes the disk's device, and ends the sessions with its target if no other
// disk is of it.
func (overIP) detach(ctx context.Context, m *machine, d *disk, others []*disk) error {
	if d.Device != "" {
		if err := m.forget(ctx, d.Device); err != nil {
			return err
		}
	}
	i := d.ISCSI
	if slices.ContainsFunc(others, func(o *disk) bool { return o.ISCSI != nil && o.ISCSI.IQN == i.IQN && o.ISCSI.Interface == i.Interface }) {
		return nil
	}
	for _, portal := range i.Portals {
		for _, last := range [][]string{{"--logout"}, {"-o", "delete"}} {
			_, err := m.run(ctx, "iscsiadm", append([]string{"-m", "node", "-p", portal, "-T", i.IQN, "-I", i.Interface}, last...)...)
			if err != nil && !strings.Contains(err.Error(), "exit status 21") { // no such session or record
				return fmt.Errorf("iscsi: failed to detach disk: %w", err)
			}
		}
	}
	if i.Initiator != "" {
		if _, err := m.run(ctx, "iscsiadm", "-m", "iface", "-I", i.Interface, "-o", "delete"); err != nil && !strings.Contains(err.Error(), "exit status 21") {
			return fmt.Errorf("iscsi: failed to delete iface: %w", err)
		}
	}
	return nil
}
