package authz

import (
	"context"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	v1 "k8s.io/api/rbac/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"keelson.dev/keelson/internal/api/podspec"
)

// nodePrefix begins the user name of a node.
const nodePrefix = "system:node:"

// NodeName returns the node that u acts for, and whether u is a node at all; a node
// whose name cannot be told is "".
func NodeName(u user.Info) (string, bool) {
	if u == nil || !strings.HasPrefix(u.GetName(), nodePrefix) || !slices.Contains(u.GetGroups(), user.NodesGroup) {
		return "", false
	}
	return strings.TrimPrefix(u.GetName(), nodePrefix), true
}

// Objects is the state that a node's permissions follow from. Errors are
// read as "there is none".
type Objects interface {
	// PodsOf returns the pods that are bound to the node.
	PodsOf(ctx context.Context, node string) ([]*corev1.Pod, error)
	Pod(ctx context.Context, namespace, name string) (*corev1.Pod, error)
	Claim(ctx context.Context, namespace, name string) (*corev1.PersistentVolumeClaim, error)
	Volume(ctx context.Context, name string) (*corev1.PersistentVolume, error)
	Attachment(ctx context.Context, name string) (*storagev1.VolumeAttachment, error)
	ResourceSlice(ctx context.Context, name string) (*resourcev1.ResourceSlice, error)
	PodCertificateRequest(ctx context.Context, namespace, name string) (*certificatesv1.PodCertificateRequest, error)
}

// Node authorizes the requests of nodes: what the pods bound to them need, and their
// own objects (https://kubernetes.io/docs/reference/access-authn-authz/node/). There
// is no graph of references: the store finds the pods of a node by index, and a node
// has few.
type Node struct {
	objects Objects
	rules   []v1.PolicyRule
}

var (
	_ authorizer.Authorizer   = (*Node)(nil)
	_ authorizer.RuleResolver = (*Node)(nil)
)

// NewNode makes an authorizer. What is not bound to single objects is allowed
// as the role system:node has it.
func NewNode(objects Objects) *Node {
	n := &Node{objects: objects}
	for _, o := range Bootstrap() {
		if r, ok := o.(*v1.ClusterRole); ok && r.Name == "system:node" {
			n.rules = r.Rules
		}
	}
	return n
}

// RulesFor implements authorizer.RuleResolver.
func (n *Node) RulesFor(_ context.Context, u user.Info, _ string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	if _, is := NodeName(u); is {
		return nil, nil, true, fmt.Errorf("node authorizer does not support user rule resolution")
	}
	return nil, nil, false, nil
}

// Authorize implements authorizer.Authorizer. It never denies: another
// authorizer may allow.
func (n *Node) Authorize(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	node, is := NodeName(a.GetUser())
	switch {
	case !is:
		return authorizer.DecisionNoOpinion, "", nil
	case node == "":
		return authorizer.DecisionNoOpinion, fmt.Sprintf("unknown node for user %q", a.GetUser().GetName()), nil
	}
	ok, reason := n.decide(ctx, node, a)
	if ok {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, reason, nil
}

// ConditionsAwareAuthorize implements authorizer.Authorizer: a node's
// permissions carry no conditions.
func (n *Node) ConditionsAwareAuthorize(ctx context.Context, a authorizer.Attributes) authorizer.ConditionsAwareDecision {
	return authorizer.ConditionsAwareDecisionFromParts(n.Authorize(ctx, a))
}

// EvaluateConditions implements authorizer.Authorizer.
func (n *Node) EvaluateConditions(context.Context, authorizer.ConditionsAwareDecision, authorizer.ConditionsData) (authorizer.Decision, string, error) {
	return authorizer.DecisionDeny, "", authorizer.ErrorConditionEvaluationNotSupported
}

func (n *Node) decide(ctx context.Context, node string, a authorizer.Attributes) (bool, string) {
	verb, sub, name, ns := a.GetVerb(), a.GetSubresource(), a.GetName(), a.GetNamespace()
	one := func(verbs ...string) bool { return slices.Contains(verbs, verb) }
	related := func(uses func(*corev1.Pod) bool) (bool, string) {
		if name == "" {
			return false, "No Object name found"
		}
		pods, err := n.objects.PodsOf(ctx, node)
		if err == nil && slices.ContainsFunc(pods, func(p *corev1.Pod) bool {
			return p.Status.Phase != corev1.PodFailed && p.Status.Phase != corev1.PodSucceeded && uses(p)
		}) {
			return true, ""
		}
		return false, fmt.Sprintf("no relationship found between node '%s' and this object", node)
	}
	get := func(uses func(*corev1.Pod) bool) (bool, string) {
		switch {
		case verb != "get":
			return false, "can only get individual resources of this type"
		case sub != "":
			return false, "cannot get subresource"
		}
		return related(uses)
	}
	own := func(what, own string) (bool, string) {
		switch {
		case !one("get", "create", "update", "patch", "delete"):
			return false, "can only get, create, update, patch, or delete a " + what
		case verb != "create" && name != node: // a creation's name is for admission to see
			return false, fmt.Sprintf("can only access %s with the same name as the requesting node", own)
		}
		return true, ""
	}
	if !a.IsResourceRequest() {
		return n.inRules(a), ""
	}
	switch (schema.GroupResource{Group: a.GetAPIGroup(), Resource: a.GetResource()}) {
	case schema.GroupResource{Resource: "secrets"}, schema.GroupResource{Resource: "configmaps"}:
		switch {
		case !one("get", "list", "watch"):
			return false, "can only read resources of this type"
		case sub != "":
			return false, "cannot read subresource"
		case ns == "":
			return false, "can only read namespaced object of this type"
		}
		if a.GetResource() == "configmaps" {
			return related(func(p *corev1.Pod) bool {
				return p.Namespace == ns && slices.Contains(podspec.References(p).ConfigMaps, name)
			})
		}
		return related(func(p *corev1.Pod) bool {
			return p.Namespace == ns && slices.Contains(podspec.References(p).Secrets, name) || n.volumeSecret(ctx, p, ns, name)
		})
	case schema.GroupResource{Resource: "persistentvolumeclaims"}:
		uses := func(p *corev1.Pod) bool {
			return p.Namespace == ns && slices.Contains(podspec.References(p).Claims, name)
		}
		if sub != "status" {
			return get(uses)
		}
		if !one("update", "patch") {
			return false, "can only get/update/patch this type"
		}
		return related(uses)
	case schema.GroupResource{Resource: "persistentvolumes"}:
		return get(func(p *corev1.Pod) bool {
			return slices.ContainsFunc(podspec.References(p).Claims, func(claim string) bool {
				c, err := n.objects.Claim(ctx, p.Namespace, claim)
				return err == nil && c.Spec.VolumeName == name
			})
		})
	case schema.GroupResource{Group: "resource.k8s.io", Resource: "resourceclaims"}:
		return get(func(p *corev1.Pod) bool { return p.Namespace == ns && slices.Contains(podspec.ResourceClaims(p), name) })
	case schema.GroupResource{Group: "storage.k8s.io", Resource: "volumeattachments"}:
		return get(func(*corev1.Pod) bool {
			v, err := n.objects.Attachment(ctx, name)
			return err == nil && v.Spec.NodeName == node
		})
	case schema.GroupResource{Resource: "serviceaccounts"}:
		switch {
		case verb == "get" && sub == "":
			return related(func(p *corev1.Pod) bool { return p.Namespace == ns && p.Spec.ServiceAccountName == name })
		case verb != "create" || name == "":
			return false, "can only create tokens for individual service accounts"
		case sub != "token":
			return false, "can only create token subresource of serviceaccount"
		}
		return related(func(p *corev1.Pod) bool { return p.Namespace == ns && p.Spec.ServiceAccountName == name })
	case schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}:
		if ok, reason := own("node lease", "node lease"); !ok {
			return false, reason
		}
		if ns != corev1.NamespaceNodeLease {
			return false, fmt.Sprintf("can only access leases in the %q system namespace", corev1.NamespaceNodeLease)
		}
		return true, ""
	case schema.GroupResource{Group: "storage.k8s.io", Resource: "csinodes"}:
		if sub != "" {
			return false, "cannot authorize CSINode subresources"
		}
		return own("CSINode", "CSINode")
	case schema.GroupResource{Group: "resource.k8s.io", Resource: "resourceslices"}:
		return n.resourceSlice(ctx, node, a)
	case schema.GroupResource{Group: "certificates.k8s.io", Resource: "podcertificaterequests"}:
		return n.podCertificateRequest(ctx, node, a)
	case schema.GroupResource{Resource: "nodes"}:
		return n.node(node, a)
	case schema.GroupResource{Resource: "pods"}:
		return n.pod(ctx, node, a)
	}
	return n.inRules(a), ""
}

func (n *Node) inRules(a authorizer.Attributes) bool {
	return slices.ContainsFunc(n.rules, func(r v1.PolicyRule) bool { return allows(a, &r) })
}

// selects reports whether the request is only for objects whose field has that value.
func selects(a authorizer.Attributes, field, value string) bool {
	reqs, _ := a.GetFieldSelector()
	for _, r := range reqs {
		if r.Field == field && r.Value == value && (r.Operator == selection.Equals || r.Operator == selection.DoubleEquals) {
			return true
		}
	}
	return false
}

func (n *Node) resourceSlice(ctx context.Context, node string, a authorizer.Attributes) (bool, string) {
	if a.GetSubresource() != "" {
		return false, "cannot authorize ResourceSlice subresources"
	}
	switch a.GetVerb() {
	case "create": // admission sees whose it is
		return true, ""
	case "get", "update", "patch", "delete":
		s, err := n.objects.ResourceSlice(ctx, a.GetName())
		if err != nil || s.Spec.NodeName == nil || *s.Spec.NodeName != node {
			return false, fmt.Sprintf("no relationship found between node '%s' and this object", node)
		}
		return true, ""
	case "list", "watch", "deletecollection":
		if !selects(a, resourcev1.ResourceSliceSelectorNodeName, node) {
			return false, "can only list/watch/deletecollection resourceslices with spec.nodeName field selector"
		}
		return true, ""
	}
	return false, "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection"
}

func (n *Node) podCertificateRequest(ctx context.Context, node string, a authorizer.Attributes) (bool, string) {
	if a.GetSubresource() != "" {
		return false, "cannot authorize PodCertificateRequest subresources"
	}
	switch a.GetVerb() {
	case "create": // admission sees for which pod
		return true, ""
	case "get":
		r, err := n.objects.PodCertificateRequest(ctx, a.GetNamespace(), a.GetName())
		if err != nil || string(r.Spec.NodeName) != node {
			return false, fmt.Sprintf("no relationship found between node '%s' and this object", node)
		}
		return true, ""
	case "list", "watch":
		if !selects(a, "spec.nodeName", node) {
			return false, "can only list/watch podcertificaterequests with spec.nodeName field selector"
		}
		return true, ""
	}
	return false, "only the following verbs are allowed for a PodCertificateRequest: create, get, list, watch"
}

func (n *Node) node(node string, a authorizer.Attributes) (bool, string) {
	name := a.GetName()
	switch a.GetSubresource() {
	case "":
		switch a.GetVerb() {
		case "create", "update", "patch": // of which node is for admission to see
			return true, ""
		case "get", "list", "watch":
			if name == node || name == "" && a.GetVerb() != "get" && selects(a, "metadata.name", node) {
				return true, ""
			}
			if name == "" {
				return false, fmt.Sprintf("node '%s' cannot read all nodes, only its own Node object", node)
			}
			return false, fmt.Sprintf("node '%s' cannot read '%s', only its own Node object", node, name)
		}
	case "status":
		switch a.GetVerb() {
		case "update", "patch":
			return true, ""
		}
	case "configz", "healthz", "log", "metrics", "pods", "proxy", "stats":
		return false, ""
	}
	return n.inRules(a), ""
}

func (n *Node) pod(ctx context.Context, node string, a authorizer.Attributes) (bool, string) {
	switch a.GetSubresource() {
	case "":
		switch a.GetVerb() {
		case "get":
			p, err := n.objects.Pod(ctx, a.GetNamespace(), a.GetName())
			if err != nil || p.Spec.NodeName != node {
				return false, fmt.Sprintf("no relationship found between node '%s' and this object", node)
			}
			return true, ""
		case "list", "watch":
			if !selects(a, "spec.nodeName", node) {
				return false, "can only list/watch pods with spec.nodeName field selector"
			}
			return true, ""
		case "create", "delete": // which ones is for admission to see
			return true, ""
		}
	case "status":
		return a.GetVerb() == "update" || a.GetVerb() == "patch", ""
	case "eviction":
		return a.GetVerb() == "create", ""
	}
	return false, ""
}

// volumeSecret reports whether the persistent volume of one of the pod's claims
// names the secret.
func (n *Node) volumeSecret(ctx context.Context, p *corev1.Pod, ns, name string) bool {
	for _, claim := range podspec.References(p).Claims {
		c, err := n.objects.Claim(ctx, p.Namespace, claim)
		if err != nil || c.Spec.VolumeName == "" {
			continue
		}
		v, err := n.objects.Volume(ctx, c.Spec.VolumeName)
		if err != nil {
			continue
		}
		for _, s := range podspec.VolumeSecrets(v, p.Namespace) {
			if s.Namespace == ns && s.Name == name {
				return true
			}
		}
	}
	return false
}
