package row

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TemplateColumns returns the wide columns about a pod template.
func TemplateColumns() []metav1.TableColumnDefinition {
	return []metav1.TableColumnDefinition{
		Wide("Containers", "Names of each container in the template."),
		Wide("Images", "Images referenced by each container in the template."),
	}
}

// Containers returns the names and the images of containers, as TemplateColumns
// shows them.
func Containers(cs []corev1.Container) (names, images string) {
	ns, is := make([]string, len(cs)), make([]string, len(cs))
	for i := range cs {
		ns[i], is[i] = cs[i].Name, cs[i].Image
	}
	return strings.Join(ns, ","), strings.Join(is, ",")
}
