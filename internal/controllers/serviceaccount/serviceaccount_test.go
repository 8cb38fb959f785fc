package serviceaccount

import (
	"context"
	"testing"
	"testing/synctest"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

func TestDefaultAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		c := controllertest.New(t, New)
		for name, phase := range map[string]v1.NamespacePhase{"live": v1.NamespaceActive, "dying": v1.NamespaceTerminating} {
			controllertest.Must[*v1.Namespace](t)(c.Client.CoreV1().Namespaces().Create(ctx,
				&v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: v1.NamespaceStatus{Phase: phase}}, metav1.CreateOptions{}))
		}
		synctest.Wait()
		live := controllertest.Must[*v1.ServiceAccount](t)(c.Client.CoreV1().ServiceAccounts("live").Get(ctx, "default", metav1.GetOptions{}))
		if _, err := c.Client.CoreV1().ServiceAccounts("dying").Get(ctx, "default", metav1.GetOptions{}); err == nil {
			t.Error("a terminating namespace was given an account")
		}
		if err := c.Client.CoreV1().ServiceAccounts("live").Delete(ctx, "default", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		again := controllertest.Must[*v1.ServiceAccount](t)(c.Client.CoreV1().ServiceAccounts("live").Get(ctx, "default", metav1.GetOptions{}))
		if again.UID == live.UID {
			t.Error("the account was not made anew")
		}
	})
}
