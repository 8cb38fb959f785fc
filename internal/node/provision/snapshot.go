package provision

import (
	"context"
	"encoding/json"
	"fmt"

	apipath "k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// snapshotGroup is the API group of the CRDs of the CSI project's external-snapshotter.
const snapshotGroup = "snapshot.storage.k8s.io"

// volumeSnapshot is what matters here of a VolumeSnapshot
// (https://kubernetes.io/docs/concepts/storage/volume-snapshots/).
type volumeSnapshot struct {
	metav1.ObjectMeta `json:"metadata"`
	Status            struct {
		BoundVolumeSnapshotContentName string `json:"boundVolumeSnapshotContentName"`
		ReadyToUse                     bool   `json:"readyToUse"`
	} `json:"status"`
}

// volumeSnapshotContent is what matters here of a VolumeSnapshotContent.
type volumeSnapshotContent struct {
	Spec struct {
		Driver            string `json:"driver"`
		VolumeSnapshotRef struct {
			Namespace string    `json:"namespace"`
			Name      string    `json:"name"`
			UID       types.UID `json:"uid"`
		} `json:"volumeSnapshotRef"`
	} `json:"spec"`
	Status struct {
		SnapshotHandle string `json:"snapshotHandle"`
	} `json:"status"`
}

// snapshot returns the driver's handle of a snapshot. Its content must refer to it,
// too: the snapshot's author could name any content.
func (p *Provisioner) snapshot(ctx context.Context, namespace, name string) (string, error) {
	var s volumeSnapshot
	if err := p.custom(ctx, &s, "namespaces", namespace, "volumesnapshots", name); err != nil {
		return "", fmt.Errorf("error getting snapshot %s from api server: %w", name, err)
	}
	if s.DeletionTimestamp != nil {
		return "", fmt.Errorf("snapshot %s is currently being deleted", name)
	}
	bound := s.Status.BoundVolumeSnapshotContentName
	if bound == "" || !s.Status.ReadyToUse {
		return "", fmt.Errorf("snapshot %s is not Ready", name)
	}
	var c volumeSnapshotContent
	if err := p.custom(ctx, &c, "volumesnapshotcontents", bound); err != nil {
		return "", fmt.Errorf("error getting snapshotcontent %s of snapshot %s from api server: %w", bound, name, err)
	}
	switch ref := c.Spec.VolumeSnapshotRef; {
	case ref.Namespace != namespace || ref.Name != name || ref.UID != s.UID:
		return "", fmt.Errorf("snapshotcontent %s is of snapshot %s/%s, and not of %s/%s", bound, ref.Namespace, ref.Name, namespace, name)
	case c.Spec.Driver != p.Driver:
		return "", fmt.Errorf("snapshot %s is of driver %s, and cannot be the content of a volume of %s", name, c.Spec.Driver, p.Driver)
	case c.Status.SnapshotHandle == "":
		return "", fmt.Errorf("snapshot handle %s is not available", name)
	}
	return c.Status.SnapshotHandle, nil
}

// custom reads a custom resource by the parts of its path.
func (p *Provisioner) custom(ctx context.Context, into any, path ...string) error {
	for _, part := range path {
		if why := apipath.IsValidPathSegmentName(part); len(why) > 0 { // a name of the claim's author leads nowhere else
			return fmt.Errorf("invalid name %q: %v", part, why)
		}
	}
	text, err := p.Client.Discovery().RESTClient().Get().AbsPath(append([]string{"/apis", snapshotGroup, "v1"}, path...)...).SetHeader("Accept", "application/json").DoRaw(ctx)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}
