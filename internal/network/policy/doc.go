// Package policy enforces NetworkPolicies for this node's pods by nftables.
//
// It needs informers of Pods, Namespaces and NetworkPolicies, and a Kernel for each
// family of addresses. Each family has one table:
//
//   - The maps ingress and egress lead from the address of a pod that is isolated
//     in that direction to a chain with the policies that select the pod: one lookup
//     per packet. Pods that the same policies select share the chain. It jumps to the
//     chain of each policy, and ends with a drop.
//   - The peers that a rule selects are a set of addresses. Rules with the same
//     selectors share it, so that adding or removing a pod changes one element of each.
//   - The ranges of a rule, without their exceptions, are one set of intervals.
//   - A named port is a set of addresses with the number of the port there.
//
// The rules apply where packets are forwarded: after the service proxy has chosen
// an endpoint, and before the source is translated. So a pod's own node can always
// reach it, as the API requires. Packets in the reply direction of a connection
// pass. All others are subject to the current policies, so that a new policy also
// ends connections that it does not allow.
//
// A policy that selects no pod of this node has no rules here. The table stays when
// the process ends: the next process replaces it, in one transaction, when its
// informers have synced. A table that another process has changed is replaced.
//
// Pods on the host's network are not selected, neither as the subject of a policy
// nor as a peer.
//
// It imports internal/network/nft and internal/network/upkeep, and nothing else of
// this module.
package policy
