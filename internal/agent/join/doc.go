// Package join joins machines to a cluster, as kubeadm does. On the cluster's side it
// creates bootstrap tokens and the ConfigMap kube-public/cluster-info, which the
// bootstrap signer signs with each token. On the machine's side it discovers the
// cluster's authority by a token and the hash of the authority's key, and requests the
// certificate of the node's client with the token; the certificate is then renewed with
// itself.
package join
