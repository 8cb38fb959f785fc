package cluster

import (
	"context"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"keelson.dev/keelson/internal/apiserver/controlplane"
	"keelson.dev/keelson/internal/apiserver/inprocess"
)

// TestGarbageEvent checks that the garbage collector may write its event, with the object
// that it is about.
func TestGarbageEvent(t *testing.T) {
	c := boot(t, Options{Options: controlplane.Options{NoDrain: true}, NoScheduler: true})
	ctx, client := t.Context(), c.Client(inprocess.Admin).CoreV1()
	if _, err := client.Namespaces().Create(ctx, &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "other"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	owner, err := client.ConfigMaps("other").Create(ctx, &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "owner"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	dependent, err := client.ConfigMaps("default").Create(ctx, &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "dependent", OwnerReferences: []metav1.OwnerReference{
		{APIVersion: "v1", Kind: "ConfigMap", Name: "owner", UID: owner.UID}}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var event v1.Event
	if err := wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, time.Minute, true, func(context.Context) (bool, error) {
		list, err := client.Events("default").List(ctx, metav1.ListOptions{FieldSelector: "reason=OwnerRefInvalidNamespace"})
		if err != nil || len(list.Items) == 0 {
			return false, err
		}
		event = list.Items[0]
		return true, nil
	}); err != nil {
		t.Fatal(err)
	}
	about := v1.ObjectReference{APIVersion: "v1", Kind: "ConfigMap", Namespace: "default", Name: "dependent", UID: dependent.UID}
	if event.InvolvedObject != about || event.Source.Component != "garbage-collector-controller" || event.Type != v1.EventTypeWarning ||
		!strings.HasSuffix(event.Message, `does not exist in namespace "default"`) {
		t.Errorf("the event is %+v", event)
	}
}
