// Package nodettl tells nodes, in the annotation node.alpha.kubernetes.io/ttl, for
// how many seconds they may keep Secrets and ConfigMaps that they do not watch: the
// longer, the more nodes there are.
package nodettl
