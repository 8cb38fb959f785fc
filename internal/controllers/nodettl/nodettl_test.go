package nodettl

import (
	"fmt"
	"testing"
	"testing/synctest"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

// TestTTL follows the annotation while nodes come and go.
func TestTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controllertest.New(t, New)
		client, made := c.Client.CoreV1().Nodes(), 0
		for _, step := range []struct {
			nodes int
			want  string
		}{{1, "0"}, {100, "0"}, {101, "15"}, {90, "15"}, {89, "0"}} {
			for ; made < step.nodes; made++ {
				controllertest.Must[*v1.Node](t)(client.Create(t.Context(), &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("n", made)}}, metav1.CreateOptions{}))
			}
			for ; made > step.nodes; made-- {
				if err := client.Delete(t.Context(), fmt.Sprint("n", made-1), metav1.DeleteOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			c.Advance(settle)
			for _, n := range controllertest.Must[*v1.NodeList](t)(client.List(t.Context(), metav1.ListOptions{})).Items {
				if got := n.Annotations[v1.ObjectTTLAnnotationKey]; got != step.want {
					t.Fatalf("with %d nodes %s has %q, want %q", step.nodes, n.Name, got, step.want)
				}
			}
		}
		// What another writes is put right.
		n := controllertest.Must[*v1.Node](t)(client.Get(t.Context(), "n0", metav1.GetOptions{}))
		n.Annotations[v1.ObjectTTLAnnotationKey] = "7"
		controllertest.Must[*v1.Node](t)(client.Update(t.Context(), n, metav1.UpdateOptions{}))
		c.Advance(settle)
		if n = controllertest.Must[*v1.Node](t)(client.Get(t.Context(), "n0", metav1.GetOptions{})); n.Annotations[v1.ObjectTTLAnnotationKey] != "0" {
			t.Errorf("n0 has %q", n.Annotations[v1.ObjectTTLAnnotationKey])
		}
	})
}
