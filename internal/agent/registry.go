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

// hosting is the ConfigMap in kube-public by which tools find the registry that
// images for the cluster are pushed to (https://kep.k8s.io/1755).
const hosting, hostingKey = "local-registry-hosting", "localRegistryHosting.v1"

// hostingHelp is the help in the ConfigMap, by which publishRegistry recognizes
// its own.
const hostingHelp = "keelson up --help: --registry"

// publishRegistry publishes the registry at host, or deletes its ConfigMap if there
// is none. A ConfigMap of another registry stays.
func (s *Server) publishRegistry(host string) {
	maps := s.Admin.CoreV1().ConfigMaps(metav1.NamespacePublic)
	want := &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: hosting, Namespace: metav1.NamespacePublic},
		Data: map[string]string{hostingKey: fmt.Sprintf("host: %q\nhelp: %q\n", host, hostingHelp)}}
	// The error is that of s.Ctx, which ends with the cluster.
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
