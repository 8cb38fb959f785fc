// Package policy enforces NetworkPolicies for this node's pods by nftables.
//
// It needs informers of Pods, Namespaces and NetworkPolicies, and a Kernel for each
// family of addresses. All rules are in one table a family:
//
//   - The maps ingress and egress lead from the address of a pod that is isolated
//     in that direction to a chain that has the policies which select the pod: one
//     lookup a packet. Pods that the same policies select share it. It jumps to the
//     chain of each policy, and ends with a drop.
//   - What a policy's rule names by selectors is a set of addresses. Rules with the
//     same selectors share it, so that one pod more or less is one element for each.
//   - The ranges of a rule, without their exceptions, are one set of intervals.
//   - A port's name stands for a set of addresses with that port's number.
//
// Packets are looked at where they are forwarded: after the service proxy has
// chosen an endpoint, and before the source is translated. So a pod is always
// reached by its own node, as the API says. Answers pass; each packet of the side
// that began a connection is judged by the policies that there are when it comes,
// so that a new policy also ends connections that it does not allow.
//
// A policy that selects no pod of this node has no rules here. The table stays when
// the process ends: the next one replaces it, in one transaction, when its
// informers have synced. A table that was changed by others is replaced.
//
// Pods with the machine's network are not selected, neither as the subject of a
// policy nor as a peer.
//
// It imports internal/network/nft, and nothing else of this module.
package policy
