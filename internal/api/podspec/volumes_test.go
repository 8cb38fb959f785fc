package podspec

import (
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

// TestSources has the volume sources that pods have, each with what is wrong
// with it below spec.volumes[0].
func TestSources(t *testing.T) {
	const iqn = "iqn.2001-04.com.example:storage"
	for _, c := range []struct {
		source string
		want   []string
	}{
		{"hostPath: {path: /a/../b}", []string{`hostPath.path: Invalid value: "/a/../b": must not contain '..'`}},
		{"hostPath: {type: Odd}", []string{"hostPath.path: Required value"}},
		{"gitRepo: {directory: /a}", []string{"gitRepo.repository: Required value", `gitRepo.directory: Invalid value: "/a": must be a relative path`}},
		{"gcePersistentDisk: {partition: 256}", []string{"persistentDisk.pdName: Required value", "persistentDisk.partition: Invalid value: 256: must be between 1 and 255, inclusive"}},
		{"awsElasticBlockStore: {partition: -1}", []string{"awsElasticBlockStore.volumeID: Required value", "awsElasticBlockStore.partition: Invalid value: -1: must be between 1 and 255, inclusive"}},
		{"nfs: {path: a}", []string{"nfs.server: Required value", `nfs.path: Invalid value: "a": must be an absolute path`}},
		{"iscsi: {targetPortal: p, iqn: " + iqn + ", lun: 0}", nil},
		{"iscsi: {targetPortal: p, iqn: wrong, lun: 256, chapAuthSession: true}", []string{
			`iscsi.iqn: Invalid value: "wrong": must be valid format starting with iqn, eui, or naa`, "iscsi.lun: Invalid value: 256: must be between 0 and 255, inclusive", "iscsi.secretRef: Required value"}},
		{"iscsi: {targetPortal: " + strings.Repeat("p", 63) + ", iqn: eui.1, initiatorName: naa.1}", []string{
			`iscsi.iqn: Invalid value: "eui.1": must be valid format`, `iscsi.initiatorname: Invalid value: "naa.1": must be valid format`,
			`name: Invalid value: "v": Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.`}},
		{"glusterfs: {}", []string{"glusterfs.endpoints: Required value", "glusterfs.path: Required value"}},
		{"flocker: {}", []string{"flocker: Required value: one of datasetName and datasetUUID is required"}},
		{"flocker: {datasetName: a/b, datasetUUID: u}", []string{`flocker: Invalid value: "resource": datasetName and datasetUUID can not be specified simultaneously`,
			`flocker.datasetName: Invalid value: "a/b": must not contain '/'`}},
		{"persistentVolumeClaim: {}", []string{"persistentVolumeClaim.claimName: Required value"}},
		{"rbd: {}", []string{"rbd.monitors: Required value", "rbd.image: Required value"}},
		{"cinder: {secretRef: {}}", []string{"cinder.volumeID: Required value", "cinder.secretRef.name: Required value"}},
		{"cephfs: {}", []string{"cephfs.monitors: Required value"}},
		{"quobyte: {registry: 'a:1,b'}", []string{`quobyte.registry: Invalid value: "a:1,b": must be a host:port pair or multiple pairs separated by commas`, "quobyte.volume: Required value"}},
		{"quobyte: {volume: v}", []string{"quobyte.registry: Required value: must be a host:port pair or multiple pairs separated by commas"}},
		{"quobyte: {volume: v, registry: 'a:1', tenant: " + strings.Repeat("t", 65) + "}", []string{"quobyte.tenant: Required value: must be a UUID and may not exceed a length of 64 characters"}},
		{"fc: {}", []string{"fc.targetWWNs: Required value: must specify either targetWWNs or wwids, but not both"}},
		{"fc: {targetWWNs: [a], wwids: [b]}", []string{`fc.targetWWNs: Invalid value: ["a"]: targetWWNs and wwids can not be specified simultaneously`, "fc.lun: Required value: lun is required if targetWWNs is specified"}},
		{"flexVolume: {options: {K8s.IO/a: b, x.kubernetes.io: c, d: e}}", []string{"flexVolume.driver: Required value",
			`flexVolume.options[K8s.IO/a]: Invalid value: "K8s.IO/a": kubernetes.io and k8s.io namespaces are reserved`,
			`flexVolume.options[x.kubernetes.io]: Invalid value: "x.kubernetes.io": kubernetes.io and k8s.io namespaces are reserved`}},
		{"azureFile: {}", []string{"azureFile.secretName: Required value", "azureFile.shareName: Required value"}},
		{"azureDisk: {diskName: d, diskURI: 'https://a', kind: Managed, cachingMode: Odd}", []string{
			`azureDisk.cachingMode: Unsupported value: "Odd": supported values: "None", "ReadOnly", "ReadWrite"`,
			`azureDisk.diskURI: Unsupported value: "https://a": supported values: "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"`}},
		{"vsphereVolume: {}", []string{"vsphereVolume.volumePath: Required value"}},
		{"photonPersistentDisk: {}", []string{"photonPersistentDisk.pdID: Required value"}},
		{"portworxVolume: {}", []string{"portworxVolume.volumeID: Required value"}},
		{"scaleIO: {}", []string{"scaleIO.gateway: Required value", "scaleIO.system: Required value", "scaleIO.volumeName: Required value"}},
		{"storageos: {volumeName: A, secretRef: {}}", []string{`storageos.volumeName: Invalid value: "A": a lowercase RFC 1123 label`, "storageos.secretRef.name: Required value"}},
		{"csi: {driver: -, nodePublishSecretRef: {name: A}}", []string{`csi.driver: Invalid value: "-": a lowercase RFC 1123 subdomain`, `csi.name: Invalid value: "A": a lowercase RFC 1123 subdomain`}},
		{"csi: {}", []string{"csi.driver: Required value", `csi.driver: Invalid value: "": a lowercase RFC 1123 subdomain`}},
		{"ephemeral: {}", []string{"ephemeral.volumeClaimTemplate: Required value"}},
		{"ephemeral: {volumeClaimTemplate: {metadata: {name: x, labels: {a: b}}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}}", []string{
			"ephemeral.volumeClaimTemplate.metadata.name: Forbidden: cannot be set"}},
		{"ephemeral: {volumeClaimTemplate: {spec: {}}}", []string{"ephemeral.volumeClaimTemplate.spec.accessModes: Required value: at least 1 access mode is required",
			"ephemeral.volumeClaimTemplate.spec.resources[storage]: Required value"}},
		{"image: {pullPolicy: Odd}", []string{"image.reference: Required value", `image.pullPolicy: Unsupported value: "Odd": supported values: "Always", "IfNotPresent", "Never"`}},
		{"secret: {secretName: s, defaultMode: 512, items: [{key: k, path: ..data}, {path: ../x, mode: -1}]}", []string{
			"secret.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive", `secret.items[0].path: Invalid value: "..data": must not start with '..'`,
			"secret.items[1].key: Required value", `secret.items[1].path: Invalid value: "../x": must not contain '..'`, "secret.items[1].mode: Invalid value: -1: must be a number between 0 and 0777 (octal), both inclusive"}},
		{"configMap: {}", []string{"configMap.name: Required value"}},
		{"emptyDir: {}, configMap: {name: c}, nfs: {}", []string{"configMap: Forbidden: may not specify more than 1 volume type", "nfs: Forbidden: may not specify more than 1 volume type"}},
		{"projected: {sources: [{secret: {name: a, items: [{key: k, path: p}]}}, {configMap: {items: [{key: k, path: p}]}}]}", []string{
			"projected.sources[1].configMap.name: Required value", `projected: Invalid value: "": conflicting duplicate paths`}},
		{"projected: {sources: [{secret: {name: a}, configMap: {name: b}}]}", []string{"projected.sources[0]: Forbidden: may not specify more than 1 volume type per source"}},
		{"projected: {sources: [{serviceAccountToken: {path: /t}}]}", []string{`projected.path: Invalid value: "/t": must be a relative path`}},
		{"projected: {sources: [{clusterTrustBundle: {}}]}", []string{"projected.sources[0].clusterTrustBundle: Required value: either name or signerName must be specified",
			"projected.sources[0].clusterTrustBundle.path: Required value"}},
		{"projected: {sources: [{clusterTrustBundle: {path: a, name: 'x.y:z:B', labelSelector: {}}}]}", []string{
			`projected.sources[0].clusterTrustBundle.name: Invalid value: "x.y:z:B": not a valid clustertrustbundlename: a lowercase RFC 1123 subdomain`,
			"projected.sources[0].clusterTrustBundle.labelSelector: Invalid value: {}: labelSelector must be unset if name is specified"}},
		{"projected: {sources: [{clusterTrustBundle: {path: a, signerName: me}}]}", []string{
			`projected.sources[0].clusterTrustBundle.signerName: Invalid value: "me": must be a fully qualified domain and path of the form 'example.com/signer-name'`}},
		{"projected: {sources: [{podCertificate: {signerName: example.com/s, keyType: ED25519, credentialBundlePath: b}}]}", nil},
		{"projected: {sources: [{podCertificate: {keyType: DSA, maxExpirationSeconds: 3599}}]}", []string{
			"projected.sources[0].podCertificate: Required value: specify at least one of credentialBundlePath, keyPath, and certificateChainPath",
			`projected.sources[0].podCertificate.keyType: Unsupported value: "DSA": supported values: "RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"`,
			"projected.sources[0].podCertificate.maxExpirationSeconds: Invalid value: 3599: if provided, maxExpirationSeconds must be >= 3600",
			"projected.sources[0].podCertificate.signerName: Required value"}},
		{"projected: {sources: [{podCertificate: {signerName: example.com/s, keyType: ED25519, keyPath: k, certificateChainPath: k, maxExpirationSeconds: 7862401}}]}", []string{
			`projected: Invalid value: "k": conflicting duplicate paths`,
			"projected.sources[0].podCertificate.maxExpirationSeconds: Invalid value: 7862401: if provided, maxExpirationSeconds must be <= 7862400"}},
	} {
		for i := range c.want {
			c.want[i] = "spec.volumes[0]." + c.want[i]
		}
		like(t, c.source, messages(ValidatePod(pod(t, "{spec: {volumes: [{name: v, "+c.source+"}]}}"))), c.want)
	}
}

func TestVolumes(t *testing.T) {
	const claim = "volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}"
	for _, c := range []struct {
		spec string
		want []string
	}{
		{"volumes: [{emptyDir: {}}, {name: A}, {name: v}, {name: v}]", []string{"spec.volumes[0].name: Required value", `spec.volumes[1].name: Invalid value: "A": a lowercase RFC 1123 label`,
			`spec.volumes[3].name: Duplicate value: "v"`}},
		{"volumes: [{name: v, ephemeral: {" + claim + "}}, {name: w, persistentVolumeClaim: {claimName: p-v}}]", []string{
			`spec.volumes[1].persistentVolumeClaim.claimName: Invalid value: "p-v": must not reference a PVC that gets created for an ephemeral volume`}},
		// A volume that is not good is not there to be mounted.
		{"{volumes: [{name: v, nfs: {}}], containers: [{name: c, image: i, volumeMounts: [{name: v, mountPath: /a}]}]}", []string{
			"spec.volumes[0].nfs.server: Required value", "spec.volumes[0].nfs.path: Required value", `spec.volumes[0].nfs.path: Invalid value: "": must be an absolute path`,
			`spec.containers[0].volumeMounts[0].name: Not found: "v"`}},
		{"{volumes: [{name: v}], containers: [{name: c, image: i, volumeMounts: [{name: v, mountPath: /a, subPath: ../x, subPathExpr: z}, {name: v, mountPath: /a}, {}]}]}", []string{
			`spec.containers[0].volumeMounts.subPath: Invalid value: "../x": must not contain '..'`, `spec.containers[0].volumeMounts[0].subPathExpr: Invalid value: "z": subPathExpr and subPath are mutually exclusive`,
			`spec.containers[0].volumeMounts[1].mountPath: Invalid value: "/a": must be unique`, "spec.containers[0].volumeMounts[2].name: Required value",
			`spec.containers[0].volumeMounts[2].name: Not found: ""`, "spec.containers[0].volumeMounts[2].mountPath: Required value"}},
		{"{volumes: [{name: v}], containers: [{name: c, image: i, volumeMounts: [{name: v, mountPath: /a, mountPropagation: Bidirectional, recursiveReadOnly: Enabled}]}]}", []string{
			"spec.containers[0].volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers",
			"spec.containers[0].volumeMounts.recursiveReadOnly: Forbidden: may only be specified when readOnly is true",
			"spec.containers[0].volumeMounts.recursiveReadOnly: Forbidden: may only be specified when mountPropagation is None or not specified"}},
		{"{volumes: [{name: v}], containers: [{name: c, image: i, volumeMounts: [{name: v, mountPath: /a, recursiveReadOnly: Odd}]}]}", []string{
			`spec.containers[0].volumeMounts.recursiveReadOnly: Unsupported value: "Odd": supported values: "Disabled", "Enabled", "IfPossible"`}},
		{"{volumes: [{name: v}, {name: w, persistentVolumeClaim: {claimName: x}}], containers: [{name: c, image: i, volumeMounts: [{name: w, mountPath: /dev/b}], " +
			"volumeDevices: [{name: v, devicePath: /dev/a}, {name: w, devicePath: /dev/b}, {devicePath: /dev/../c}]}]}", []string{
			`spec.containers[0].volumeMounts[0].name: Invalid value: "w": must not already exist in volumeDevices`,
			`spec.containers[0].volumeMounts[0].mountPath: Invalid value: "/dev/b": must not already exist as a path in volumeDevices`,
			`spec.containers[0].volumeDevices[0].name: Invalid value: "v": can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode`,
			`spec.containers[0].volumeDevices[1].name: Invalid value: "w": must not already exist in volumeMounts`,
			`spec.containers[0].volumeDevices[1].devicePath: Invalid value: "/dev/b": must not already exist as a path in volumeMounts`,
			"spec.containers[0].volumeDevices[2].name: Required value", `spec.containers[0].volumeDevices[2].name: Not found: ""`,
			`spec.containers[0].volumeDevices[2].devicePath: Invalid value: "/dev/../c": can not contain backsteps ('..')`}},
		{"{serviceAccountName: '', volumes: [{name: v, projected: {sources: [{serviceAccountToken: {path: t}}]}}]}", []string{
			"spec.volumes[0].projected.sources[0].serviceAccountToken: Forbidden: must not be specified when serviceAccountName is not set"}},
	} {
		like(t, c.spec, messages(ValidatePod(pod(t, "{spec: "+braced(c.spec)+"}"))), c.want)
	}
}

func TestPersistentVolumeSpec(t *testing.T) {
	const good = "accessModes: [ReadWriteOnce], capacity: {storage: 1Gi}"
	for _, c := range []struct {
		spec string
		want []string
	}{
		{good + ", hostPath: {path: /a}", nil},
		{"{}", []string{"spec: Required value: must specify a volume type", "spec.accessModes: Required value", "spec.capacity: Required value", "spec.capacity: Unsupported value: null"}},
		{"accessModes: [ReadWriteOncePod, ReadOnlyMany, Odd], capacity: {storage: 0, cpu: -1}, hostPath: {path: /a}", []string{
			`spec.accessModes: Unsupported value: "Odd": supported values: "ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"`,
			"spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes", "spec.capacity: Unsupported value:", `spec.capacity[storage]: Invalid value: "0": must be greater than zero`,
			"spec.capacity[cpu]: Invalid value: -1: must be a valid resource quantity", `spec.capacity[cpu]: Invalid value: "-1": must be greater than zero`}},
		{good + ", hostPath: {path: //}, persistentVolumeReclaimPolicy: Recycle", []string{"spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'"}},
		{good + ", hostPath: {path: /a}, nfs: {server: s, path: /b}, persistentVolumeReclaimPolicy: Odd, volumeMode: Odd, storageClassName: A_", []string{
			"spec.nfs: Forbidden: may not specify more than 1 volume type", `spec.persistentVolumeReclaimPolicy: Unsupported value: "Odd": supported values: "Delete", "Recycle", "Retain"`,
			`spec.volumeMode: Unsupported value: "Odd": supported values: "Block", "Filesystem"`, `spec.storageClassName: Invalid value: "A_": a lowercase RFC 1123 subdomain`}},
		{good + ", local: {path: /a/..}", []string{`spec.local.path: Invalid value: "/a/..": must not contain '..'`, "spec.nodeAffinity: Required value: Local volume requires node affinity"}},
		{good + ", local: {path: /a}, nodeAffinity: {}", []string{"spec.nodeAffinity.required: Required value: must specify required node constraints"}},
		{good + ", local: {path: /a}, nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: In, values: ['b c']}]}]}}", []string{
			`spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].values[0]: Invalid value: "b c": a valid label must be`}},
		{good + ", csi: {driver: d, nodeStageSecretRef: {}, controllerExpandSecretRef: {name: A}}", []string{"spec.csi.volumeHandle: Required value",
			`spec.csi.controllerExpandSecretRef.name: Invalid value: "A": a lowercase RFC 1123 subdomain`, "spec.csi.controllerExpandSecretRef.namespace: Required value"}},
		{good + ", nfs: {server: s, path: /a}, volumeAttributesClassName: ''", []string{"spec.volumeAttributesClassName: Required value: an empty string is disallowed",
			"spec.csi: Required value: has to be specified when using volumeAttributesClassName"}},
		{good + ", glusterfs: {endpoints: e, path: p, endpointsNamespace: ''}", []string{
			`spec.glusterfs.endpointsNamespace: Invalid value: "": if the endpointnamespace is set, it must be a valid namespace name`}},
		{good + ", azureFile: {secretName: s, shareName: h, secretNamespace: ''}", []string{"spec.azureFile.secretNamespace: Required value"}},
		{good + ", cinder: {volumeID: v, secretRef: {name: s}}", []string{"spec.cinder.secretRef.namespace: Required value"}},
		{good + ", storageos: {volumeName: v, secretRef: {}}", []string{"spec.storageos.secretRef.name: Required value", "spec.storageos.secretRef.namespace: Required value"}},
		{good + ", iscsi: {targetPortal: p, iqn: wrong, secretRef: {}}", []string{`spec.iscsi.iqn: Invalid value: "wrong": must be valid format`, "spec.iscsi.secretRef.name: Required value"}},
		// Beside the source of a driver of this kind there may be another one.
		{good + ", nfs: {server: s, path: /a}, flexVolume: {driver: d}", nil},
	} {
		s := &v1.PersistentVolumeSpec{}
		if err := yaml.UnmarshalStrict([]byte(braced(c.spec)), s); err != nil {
			t.Fatalf("%s: %v", c.spec, err)
		}
		like(t, c.spec, messages(ValidatePersistentVolumeSpec(s, "pv", specPath)), c.want)
	}
}

func TestInlineVolumeSpec(t *testing.T) {
	for _, c := range []struct {
		spec string
		want []string
	}{
		{"{accessModes: [ReadWriteOnce], csi: {driver: d, volumeHandle: h}, persistentVolumeReclaimPolicy: Retain, volumeMode: Filesystem}", nil},
		{"{accessModes: [ReadWriteOnce], csi: {driver: d, volumeHandle: h}, claimRef: {}, capacity: {storage: 1}, persistentVolumeReclaimPolicy: Delete, nodeAffinity: {}, storageClassName: c, volumeMode: Block}", []string{
			"s.capacity: Forbidden: may not be specified in the context of inline volumes", "s.claimRef: Forbidden: may not be specified in the context of inline volumes",
			"s.nodeAffinity: Forbidden: may not be specified in the context of inline volumes", "s.persistentVolumeReclaimPolicy: Forbidden: may only be Retain in the context of inline volumes",
			"s.storageClassName: Forbidden: may not be specified in the context of inline volumes",
			"s.volumeMode: Forbidden: may not specify volumeMode other than Filesystem in the context of inline volumes"}},
		{"{nfs: {server: s, path: /a}}", []string{"s.accessModes: Required value", "s.csi: Required value: has to be specified in the context of inline volumes"}},
	} {
		s := &v1.PersistentVolumeSpec{}
		if err := yaml.UnmarshalStrict([]byte(c.spec), s); err != nil {
			t.Fatalf("%s: %v", c.spec, err)
		}
		like(t, c.spec, messages(ValidateInlineVolumeSpec(s, "", field.NewPath("s"))), c.want)
	}
}

// TestClaims names the claims of a pod's volumes.
func TestClaims(t *testing.T) {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"}, Spec: v1.PodSpec{Volumes: []v1.Volume{
		{Name: "data", VolumeSource: v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}}},
		{Name: "empty", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}},
		{Name: "scratch", VolumeSource: v1.VolumeSource{Ephemeral: &v1.EphemeralVolumeSource{}}},
	}}}
	if got, want := ClaimKeys(p), []string{"ns/c", "ns/p-scratch"}; !slices.Equal(got, want) {
		t.Errorf("the claims are %q, want %q", got, want)
	}
	if got, want := References(p).Claims, []string{"c", "p-scratch"}; !slices.Equal(got, want) {
		t.Errorf("the references are %q, want %q", got, want)
	}
	for i, want := range []string{"c", "", "p-scratch"} {
		if got := ClaimName(p, &p.Spec.Volumes[i]); got != want {
			t.Errorf("volume %d has the claim %q, want %q", i, got, want)
		}
	}
}
