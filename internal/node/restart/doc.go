// Package restart decides which containers of a pod run again after they exit:
// the pod's restart policy, the containers' own policies and their rules
// (https://kep.k8s.io/753, /5307 and /5532). It may import the API types only.
package restart
