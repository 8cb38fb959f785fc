package agent

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	v1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/agent/join"
	"keelson.dev/keelson/internal/machine"
	"keelson.dev/keelson/internal/node/localdriver"
	"keelson.dev/keelson/internal/node/provision"
	"keelson.dev/keelson/internal/node/volume"
	"keelson.dev/keelson/internal/reconcile"
)

// nodeStorageRole is the name of the ClusterRole by which nodes read the claims
// that they make volumes for, and write the objects of these volumes; admission
// restricts them to their own. On other clusters the account of a driver's
// external-provisioner has these rights, by a token that is on every node.
const nodeStorageRole = "keelson:node-storage"

// localClass is the name of the StorageClass of the local driver.
const localClass = "local"

// prepareStorage creates the objects that the local driver needs in the cluster:
// the nodes' role, and the CSIDriver. The StorageClass is created together with
// the CSIDriver only, so that people may change or delete it.
func prepareStorage(ctx context.Context, admin kubernetes.Interface) error {
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: nodeStorageRole}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"persistentvolumeclaims"}, Verbs: []string{"get", "list", "watch"}},
		{APIGroups: []string{""}, Resources: []string{"persistentvolumeclaims/status"}, Verbs: []string{"update"}},
		{APIGroups: []string{""}, Resources: []string{"persistentvolumes"}, Verbs: []string{"get", "list", "watch", "create", "update", "delete"}},
		{APIGroups: []string{"storage.k8s.io"}, Resources: []string{"storageclasses"}, Verbs: []string{"get", "list", "watch"}},
		{APIGroups: []string{"storage.k8s.io"}, Resources: []string{"csistoragecapacities"}, Verbs: []string{"list", "create", "update", "delete"}},
		{APIGroups: []string{"snapshot.storage.k8s.io"}, Resources: []string{"volumesnapshots", "volumesnapshotcontents"}, Verbs: []string{"get"}},
	}}
	if err := setRole(ctx, admin, role); err != nil {
		return fmt.Errorf("the role of the nodes' storage: %w", err)
	}
	if err := join.Bind(ctx, admin, nodeStorageRole, nodeStorageRole, user.NodesGroup); err != nil {
		return err
	}
	_, err := admin.StorageV1().CSIDrivers().Get(ctx, localdriver.Name, metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		return err
	}
	class := &storagev1.StorageClass{
		ObjectMeta:  metav1.ObjectMeta{Name: localClass, Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"}},
		Provisioner: localdriver.Name, ReclaimPolicy: ptr.To(v1.PersistentVolumeReclaimDelete),
		VolumeBindingMode: ptr.To(storagev1.VolumeBindingWaitForFirstConsumer), AllowVolumeExpansion: ptr.To(true),
	}
	if _, err := admin.StorageV1().StorageClasses().Create(ctx, class, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("the StorageClass %s: %w", class.Name, err)
	}
	driver := &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: localdriver.Name}, Spec: storagev1.CSIDriverSpec{
		AttachRequired: ptr.To(false), FSGroupPolicy: ptr.To(storagev1.FileFSGroupPolicy), StorageCapacity: ptr.To(true),
		VolumeLifecycleModes: []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent},
	}}
	if _, err := admin.StorageV1().CSIDrivers().Create(ctx, driver, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("the CSIDriver %s: %w", driver.Name, err)
	}
	return nil
}

// setRole makes a role, or gives the one that is there its rules: those of an earlier
// version may lack some.
func setRole(ctx context.Context, admin kubernetes.Interface, role *rbacv1.ClusterRole) error {
	roles := admin.RbacV1().ClusterRoles()
	old, err := roles.Get(ctx, role.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		_, err = roles.Create(ctx, role, metav1.CreateOptions{})
	case err == nil && !equality.Semantic.DeepEqual(old.Rules, role.Rules):
		old.Rules = role.Rules
		_, err = roles.Update(ctx, old, metav1.UpdateOptions{})
	}
	return err
}

// publishStorage calls prepareStorage until it succeeds.
func (s *Server) publishStorage() {
	// The error is that of s.Ctx, which ends with the cluster.
	_ = wait.PollUntilContextCancel(s.Ctx, time.Second, true, func(ctx context.Context) (bool, error) {
		err := prepareStorage(ctx, s.Admin)
		if err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Preparing the cluster for local volumes failed; trying again")
		}
		return err == nil, nil
	})
}

// startStorage starts the upkeep of volumes in use, and the local driver with its
// provisioner. The caller starts the informers afterwards.
func (h *host) startStorage(m *machine.Machine, o Options, volumes *volume.Manager) {
	h.Go(func() { volumes.Run(h.Ctx) })
	if o.Storage == None {
		return
	}
	d := &localdriver.Driver{Dir: filepath.Join(m.Dir(), "volumes"), Node: o.Name, Version: h.version, Clock: h.clock}
	h.Go(func() {
		h.fail("the local driver", d.Serve(h.Ctx, filepath.Join(m.Root(), "plugins", localdriver.Name, "csi.sock"), filepath.Join(registryDir(m), localdriver.Name+"-reg.sock")))
	})
	p := provision.New(provision.Config{
		Node: o.Name, Topology: localdriver.Topology, Driver: localdriver.Name, Controller: d, Client: h.client, Informers: h.informers,
		Recorder: h.Recorder(h.client, localdriver.Name+"_"+o.Name, o.Name), Clock: h.clock,
	})
	h.Go(func() { p.Run(h.Ctx) })
	// The driver's own part of a growth is the node's to begin.
	reconcile.Handle(h.informers.Core().V1().PersistentVolumeClaims().Informer(), func(c *v1.PersistentVolumeClaim) {
		if volume.Grows(c) {
			volumes.Look(c.UID)
		}
	}, nil, reconcile.Ignore)
}
