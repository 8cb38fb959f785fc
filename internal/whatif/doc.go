// Package whatif answers what would happen in a cluster: a fork of its objects gets a
// control plane of its own in memory, with simulated nodes in place of the machines and a
// clock that runs ahead, is changed, and left alone until nothing moves. Nothing of the
// cluster itself is touched.
//
// What is not simulated: webhooks and aggregated servers are not asked, images are
// always there and containers become Ready, and nothing outside of the cluster answers.
//
// It may import package cluster and all below.
package whatif
