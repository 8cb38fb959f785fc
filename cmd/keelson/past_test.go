package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/apiserver/controlplane"
	"keelson.dev/keelson/internal/cluster"
	"keelson.dev/keelson/internal/store/embedded"
	"keelson.dev/keelson/test/harness"
)

// TestPast uses the commands about the past of a cluster: a Deployment is made, scaled
// and deleted, found out about, restored and saved.
func TestPast(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	start := func() *cluster.Cluster {
		t.Helper()
		c, err := cluster.Start(context.WithoutCancel(ctx), cluster.Options{SimNodes: 2, Options: controlplane.Options{
			DataDir: dir, NoSync: true, NoDrain: true, Listen: "127.0.0.1:0", Past: embedded.PastOptions{Age: time.Hour}}})
		if err != nil {
			t.Fatal(err)
		}
		cfg, err := c.Kubeconfig(contextName)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, "test.kubeconfig")
		if err := clientcmd.WriteToFile(*cfg, file); err != nil {
			t.Fatal(err)
		}
		t.Setenv("KUBECONFIG", file)
		return c
	}
	release, err := serverInstance.claim(dir) // as keelson server does
	if err != nil {
		t.Fatal(err)
	}
	defer func() { release() }()
	c := start()
	stopped := false
	defer func() {
		if !stopped {
			_ = c.Stop()
		}
	}()
	run := func(args ...string) (string, error) {
		var out bytes.Buffer
		root := root()
		root.SetArgs(args)
		root.SetOut(&out)
		root.SetErr(&out)
		err := root.ExecuteContext(ctx)
		return out.String(), err
	}
	says := func(want []string, args ...string) {
		t.Helper()
		out, err := run(args...)
		if err != nil {
			t.Errorf("keelson %s: %v", strings.Join(args, " "), err)
		}
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("keelson %s: there is no %q in\n%s", strings.Join(args, " "), w, out)
			}
		}
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		t.Fatal(err)
	}
	cfg.UserAgent = "test/1"
	deployments := kubernetes.NewForConfigOrDie(cfg).AppsV1().Deployments("default")
	labels := map[string]string{"app": "web"}
	_, err = deployments.Create(ctx, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: appsv1.DeploymentSpec{Replicas: ptr.To[int32](2), Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "image"}}}}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	available := func(want int32) {
		t.Helper()
		harness.Eventually(t, "the Deployment is available", func() bool {
			d, err := deployments.Get(ctx, "web", metav1.GetOptions{})
			return err == nil && d.Status.AvailableReplicas == want && d.Status.Replicas == want
		})
	}
	available(2)
	d, err := deployments.Get(ctx, "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kubernetes.NewForConfigOrDie(cfg).CoreV1().Events("default").Create(ctx, &v1.Event{ObjectMeta: metav1.ObjectMeta{Name: "e"}, Type: v1.EventTypeWarning, Reason: "Odd", Message: "\x1b[2Jgone",
		InvolvedObject: v1.ObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Namespace: "default", Name: "web", UID: d.UID}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	says([]string{"Odd: ^[[2Jgone"}, "why", "deploy/web") // what others wrote does nothing to the terminal
	says([]string{"web: 2 → 5 (3 created, 0 deleted)", "nothing of the cluster was touched"}, "whatif", "--scale", "deploy/web=5")
	says([]string{"deployment/web was created", "by kubernetes-admin with test"}, "why", "deploy/web")
	if _, err := deployments.Patch(ctx, "web", types.MergePatchType, []byte(`{"spec":{"replicas":1}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	available(1)
	says([]string{"deployments.apps/web in default", "updated by kubernetes-admin with test/1", "-  replicas: 2", "+  replicas: 1"}, "diff", "--since", d.ResourceVersion, "deploy/web")
	says([]string{"-  replicas: 1", "+  replicas: 2", "(dry run)"}, "restore", "deploy/web", "--at", d.ResourceVersion, "--dry-run")
	says([]string{"deployments.apps/web restored"}, "restore", "deploy/web", "--at", d.ResourceVersion)
	available(2)
	if err := deployments.Delete(ctx, "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	says([]string{"It was deleted", "by kubernetes-admin with test", "It does not exist any more."}, "why", "deploy/web")
	says([]string{"deployments.apps/web created again"}, "restore", "deploy/web", "--at", d.ResourceVersion)
	available(2)

	file := filepath.Join(dir, "a"+snapshotSuffix)
	says([]string{"objects at revision"}, "snapshot", "save", file)
	says([]string{"whole"}, "snapshot", "list", dir)
	if _, err := run("snapshot", "save", file); err == nil {
		t.Error("a snapshot was written over another")
	}
	if err := deployments.Delete(ctx, "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := run("snapshot", "restore", file, "--data-dir", dir); err == nil || !strings.Contains(err.Error(), "another keelson server is at work") {
		t.Errorf("a snapshot was restored under a running server (%v)", err)
	}
	stopped = true
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	release()
	says([]string{"the store that was there is now", "restored"}, "snapshot", "restore", file, "--data-dir", dir)
	if release, err = serverInstance.claim(dir); err != nil {
		t.Fatalf("the folder is still claimed: %v", err)
	}
	c, stopped = start(), false
	if cfg, err = clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG")); err != nil {
		t.Fatal(err)
	}
	deployments = kubernetes.NewForConfigOrDie(cfg).AppsV1().Deployments("default")
	available(2)
}
