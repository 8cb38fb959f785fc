// Package join lets machines into a cluster, as kubeadm does: bootstrap tokens and the
// ConfigMap kube-public/cluster-info, which the bootstrap signer signs with each of
// them, on the cluster's side; on the machine's, the discovery of the cluster's
// authority by a token and the hash of its key, and the certificate of the node's
// client, which is requested by the token and renewed by itself.
package join
