package agent

import (
	"context"
	"fmt"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/klog/v2"
)

// hosting is the ConfigMap in kube-public by which a cluster tells tools of the
// registry that images for it are pushed to (https://kep.k8s.io/1755).
const hosting, hostingKey = "local-registry-hosting", "localRegistryHosting.v1"

// hostingHelp tells that a ConfigMap is of this cluster.
const hostingHelp = "keelson up --help: --registry"

// publishRegistry tells of the registry at host, or that there is none. A ConfigMap
// of somebody else's registry stays.
func (s *Server) publishRegistry(host string) {
	maps := s.Admin.CoreV1().ConfigMaps(metav1.NamespacePublic)
	want := &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: hosting, Namespace: metav1.NamespacePublic},
		Data: map[string]string{hostingKey: fmt.Sprintf("host: %q\nhelp: %q\n", host, hostingHelp)}}
	// Only the end of the cluster ends it in another way.
	_ = wait.PollUntilContextCancel(s.Ctx, time.Second, true, func(ctx context.Context) (bool, error) {
		old, err := maps.Get(ctx, hosting, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err) && host == "":
			err = nil
		case apierrors.IsNotFound(err):
			_, err = maps.Create(ctx, want, metav1.CreateOptions{})
		case err == nil && !strings.Contains(old.Data[hostingKey], hostingHelp):
		case err == nil && host == "":
			err = maps.Delete(ctx, hosting, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(old.UID))})
		case err == nil && old.Data[hostingKey] != want.Data[hostingKey]:
			_, err = maps.Update(ctx, want, metav1.UpdateOptions{})
		}
		if err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Telling of the registry failed; trying again")
		}
		return err == nil, nil
	})
}
