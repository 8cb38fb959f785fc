package core

import (
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/internal/api"
)

type change struct {
	old, text string
	want      []string
}

// testChanges updates the object of base and old to what text makes of it; of
// the messages wanted, the beginning will do.
func testChanges(t *testing.T, r *api.Resource, strategy *api.UpdateStrategy, base string, cases []change) {
	t.Helper()
	for _, c := range cases {
		old, o := object(t, r, base, c.old), object(t, r, base, c.old, c.text)
		if strategy.PrepareForUpdate != nil {
			strategy.PrepareForUpdate(o, old)
		}
		got := messages(strategy.ValidateUpdate(o, old))
		for i := range got {
			if i < len(c.want) && strings.HasPrefix(got[i], c.want[i]) {
				got[i] = c.want[i]
			}
		}
		same(t, c.old+" to "+c.text, got, c.want)
	}
}

func TestPersistentVolume(t *testing.T) {
	r := persistentVolumes()
	const base = "{metadata: {name: p}, spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce]}}"
	testCreations(t, r, base, []creation{
		{"spec: {hostPath: {path: /a}}", nil},
		{"{metadata: {annotations: {volume.beta.kubernetes.io/mount-options: ro}}, spec: {hostPath: {path: /a}}}", []string{
			"metadata.annotations.volume.beta.kubernetes.io/mount-options: Forbidden: may not specify mount options for this volume type"}},
		{"{metadata: {annotations: {volume.beta.kubernetes.io/mount-options: ro}}, spec: {nfs: {server: s, path: /a}}}", nil},
	})
	p := object(t, r, base, "spec: {rbd: {monitors: [m], image: i}}").(*v1.PersistentVolume)
	if p.Spec.RBD.RBDPool != "rbd" || p.Spec.RBD.RadosUser != "admin" || p.Spec.RBD.Keyring != "/etc/ceph/keyring" || *p.Spec.VolumeMode != v1.PersistentVolumeFilesystem {
		t.Errorf("defaults: %+v", p.Spec)
	}
	const affinity = "nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: %, operator: In, values: [a]}]}]}}"
	beta, stable, other := strings.Replace(affinity, "%", "failure-domain.beta.kubernetes.io/zone", 1), strings.Replace(affinity, "%", "topology.kubernetes.io/zone", 1), strings.Replace(affinity, "%", "zone", 1)
	testChanges(t, r, &r.UpdateStrategy, base, []change{
		{"spec: {hostPath: {path: /a}}", "spec: {capacity: {storage: 2Gi}, persistentVolumeReclaimPolicy: Delete, claimRef: {name: c}}", nil},
		{"spec: {hostPath: {path: /a}}", "spec: {hostPath: {path: /b}, volumeMode: Block}", []string{
			"spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation\n", `volumeMode: Invalid value: "Block": field is immutable`}},
		{"spec: {csi: {driver: d, volumeHandle: h}}", "spec: {csi: {controllerExpandSecretRef: {name: a, namespace: b}}, volumeAttributesClassName: c}", nil},
		{"spec: {csi: {driver: d, volumeHandle: h, controllerExpandSecretRef: {name: a, namespace: b}}, volumeAttributesClassName: c}",
			"spec: {csi: {controllerExpandSecretRef: {name: z}}, volumeAttributesClassName: null}", []string{
				"spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation\n",
				"spec.volumeAttributesClassName: Forbidden: update from non-nil value to nil is forbidden"}},
		{"spec: {hostPath: {path: /a}}", "spec: {" + beta + "}", nil},
		{"spec: {hostPath: {path: /a}, " + beta + "}", "spec: {" + stable + "}", nil},
		{"spec: {hostPath: {path: /a}, " + stable + "}", "spec: {" + beta + "}", []string{"nodeAffinity: Invalid value: "}},
		{"spec: {hostPath: {path: /a}, " + beta + "}", "spec: {" + other + "}", []string{"nodeAffinity: Invalid value: "}},
		// What was stored under weaker rules can still be changed elsewhere.
		{"spec: {hostPath: {path: /a}, storageClassName: A_}", "metadata: {labels: {a: b}}", nil},
	})
}

func TestPersistentVolumePhase(t *testing.T) {
	r := persistentVolumes()
	old := object(t, r, "{metadata: {name: p}, status: {lastPhaseTransitionTime: '2026-01-02T03:04:05Z'}}").(*v1.PersistentVolume)
	for phase, moved := range map[string]bool{"Pending": false, "Bound": true} {
		p := object(t, r, "{metadata: {name: p}, status: {lastPhaseTransitionTime: '2026-01-02T03:04:05Z', phase: "+phase+"}}").(*v1.PersistentVolume)
		r.Status.PrepareForUpdate(p, old)
		if got := !p.Status.LastPhaseTransitionTime.Equal(old.Status.LastPhaseTransitionTime); got != moved {
			t.Errorf("%s: the time of the last transition moved: %v", phase, got)
		}
	}
}

func TestPersistentVolumeClaim(t *testing.T) {
	r := persistentVolumeClaims()
	const base = "{metadata: {name: c, namespace: ns}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}"
	testCreations(t, r, base, []creation{
		{"spec: {storageClassName: ''}", nil},
		{"spec: {accessModes: [], resources: {requests: {storage: '0'}}, selector: {matchLabels: {a: 'b c'}}}", []string{
			"spec.accessModes: Required value: at least 1 access mode is required", `spec.resources[storage]: Invalid value: "0": must be greater than zero`,
			"spec.selector.matchLabels: Invalid value: \"b c\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"}},
		{"spec: {volumeMode: Odd}", []string{`spec.volumeMode: Unsupported value: "Odd": supported values: "Block", "Filesystem"`}},
		{"spec: {dataSourceRef: {kind: Pod, name: p}}", []string{
			`spec.dataSource: Invalid value: "Pod": must be 'PersistentVolumeClaim' when referencing the default apiGroup`,
			`spec.dataSourceRef: Invalid value: "Pod": must be 'PersistentVolumeClaim' when referencing the default apiGroup`}},
		{"spec: {dataSource: {kind: PersistentVolumeClaim, name: a}, dataSourceRef: {kind: PersistentVolumeClaim, name: b}}", []string{
			"spec: Invalid value: {}: must match dataSourceRef"}},
		// An old client's source of another kind is forgotten.
		{"spec: {dataSource: {kind: Pod, name: p}}", nil},
	})
	const sized = "status: {phase: Bound, capacity: {storage: 1Gi}}"
	bound := func(spec string) string { return "{spec: {volumeName: v, " + spec + "}, " + sized + "}" }
	testChanges(t, r, &r.UpdateStrategy, base, []change{
		{"{}", "metadata: {labels: {a: b}}", nil},
		{"{}", "spec: {volumeName: v}", nil},
		{"spec: {volumeName: v}", "spec: {volumeName: w}", []string{"spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n"}},
		{"{}", "spec: {resources: {requests: {storage: 2Gi}}}", []string{"spec: Forbidden: spec is immutable after creation"}},
		{bound(""), "spec: {resources: {requests: {storage: 2Gi}}}", nil},
		{bound("resources: {requests: {storage: 3Gi}}"), "spec: {resources: {requests: {storage: 2Gi}}}", nil},
		{bound("resources: {requests: {storage: 3Gi}}"), "spec: {resources: {requests: {storage: 1Gi}}}", []string{
			"spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"}},
		{"{}", "spec: {volumeMode: Block}", []string{"spec: Forbidden: spec is immutable after creation", `volumeMode: Invalid value: "Block": field is immutable`}},
		{"{}", "spec: {storageClassName: s}", nil},
		{"spec: {storageClassName: s}", "spec: {storageClassName: t}", []string{"spec: Forbidden: spec is immutable after creation"}},
		{"metadata: {annotations: {volume.beta.kubernetes.io/storage-class: s}}", "{metadata: {annotations: {volume.beta.kubernetes.io/storage-class: s}}, spec: {storageClassName: s}}", nil},
		{"metadata: {annotations: {volume.beta.kubernetes.io/storage-class: s}}", "metadata: {annotations: {volume.beta.kubernetes.io/storage-class: t}}", []string{
			`metadata.annotations.volume.beta.kubernetes.io/storage-class: Invalid value: "t": field is immutable`}},
		{bound("volumeAttributesClassName: a"), "spec: {volumeAttributesClassName: b}", nil},
		{bound("volumeAttributesClassName: a"), "spec: {volumeAttributesClassName: null}", nil},
		{"spec: {volumeAttributesClassName: a}", "spec: {volumeAttributesClassName: b}", []string{"spec: Forbidden: spec is immutable after creation"}},
		{"{spec: {volumeAttributesClassName: a}, status: {phase: Bound, currentVolumeAttributesClassName: a}}", "spec: {volumeAttributesClassName: null}", []string{
			"spec.volumeAttributesClassName: Forbidden: update to nil is forbidden when status.currentVolumeAttributesClassName is not nil"}},
		{"{spec: {volumeAttributesClassName: a}, status: {phase: Bound, currentVolumeAttributesClassName: a}}", "spec: {volumeAttributesClassName: ''}", []string{
			"spec.volumeAttributesClassName: Forbidden: update to empty string is forbidden when status.currentVolumeAttributesClassName is not nil"}},
	})
	testChanges(t, r, r.Status, base, []change{
		{"{}", "status: {capacity: {storage: 1Gi}, allocatedResources: {storage: 1Gi, example.com/a: '1'}, allocatedResourceStatuses: {storage: NodeResizePending}}", nil},
		{"{}", "status: {capacity: {storage: -1}, allocatedResources: {cpu: 1, storage: -1}, allocatedResourceStatuses: {storage: Odd}}", []string{
			`status.allocatedResourceStatuses: Unsupported value: "storage": supported values: "ControllerResizeInfeasible", "ControllerResizeInProgress", "NodeResizeInfeasible", "NodeResizeInProgress", "NodeResizePending"`,
			`status.allocatedResources: Unsupported value: "cpu": supported values: "storage"`, "status.allocatedResources[storage]: Invalid value: -1: must be a valid resource quantity",
			"status.capacity[storage]: Invalid value: -1: must be a valid resource quantity"}},
	})
}

func TestDataSources(t *testing.T) {
	r := persistentVolumeClaims()
	group := "snapshot.storage.k8s.io"
	c := object(t, r, "spec: {dataSource: {apiGroup: "+group+", kind: VolumeSnapshot, name: s}}").(*v1.PersistentVolumeClaim)
	r.PrepareForCreate(c)
	if d := c.Spec.DataSourceRef; d == nil || *d.APIGroup != group || d.Kind != "VolumeSnapshot" || d.Name != "s" {
		t.Errorf("dataSourceRef: %+v", d)
	}
	c = object(t, r, "spec: {dataSourceRef: {kind: PersistentVolumeClaim, name: s}}").(*v1.PersistentVolumeClaim)
	r.PrepareForCreate(c)
	if d := c.Spec.DataSource; d == nil || d.Kind != "PersistentVolumeClaim" || d.Name != "s" {
		t.Errorf("dataSource: %+v", d)
	}
	c = object(t, r, "spec: {dataSourceRef: {kind: PersistentVolumeClaim, name: s, namespace: other}}").(*v1.PersistentVolumeClaim)
	r.PrepareForCreate(c)
	if c.Spec.DataSource != nil || c.Spec.DataSourceRef != nil {
		t.Errorf("a source of another namespace: %+v", c.Spec)
	}
}

func TestVolumeWarnings(t *testing.T) {
	p := object(t, persistentVolumes(), "{metadata: {annotations: {volume.beta.kubernetes.io/storage-class: s}}, spec: {persistentVolumeReclaimPolicy: Recycle, cephfs: {monitors: [m]}, "+
		"nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: beta.kubernetes.io/os, operator: Exists}]}]}}}}").(*v1.PersistentVolume)
	same(t, "volume", slices.Sorted(slices.Values(persistentVolumeWarnings(p))), []string{
		"metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use \"storageClassName\" attribute instead",
		"spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.",
		`spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].key: beta.kubernetes.io/os is deprecated since v1.14; use "kubernetes.io/os" instead`,
		"spec.cephfs: deprecated in v1.28, non-functional in v1.31+"})
	r := persistentVolumeClaims()
	same(t, "claim", r.Warnings(object(t, r, "spec: {resources: {requests: {storage: 1500m}}}"), nil), []string{
		`spec.resources.requests[storage]: fractional byte value "1500m" is invalid, must be an integer`})
}
