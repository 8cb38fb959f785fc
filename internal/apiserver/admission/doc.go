// Package admission has the plug-ins of the admission chain that are not
// upstream's own packages, over the published types. Each implements
// k8s.io/apiserver's admission interfaces. It may import Kubernetes' types,
// informers and listers.
package admission
