package admission

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/admission"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	bootstrapapi "k8s.io/cluster-bootstrap/token/api"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/api/podspec"
	"keelson.dev/keelson/internal/apiserver/authz"
)

var requestResource = schema.GroupResource{Group: certificatesv1.GroupName, Resource: "certificatesigningrequests"}

// Pods reads a pod as it is now.
type Pods interface {
	Pod(ctx context.Context, namespace, name string) (*v1.Pod, error)
}

// nodeRestriction keeps a node to its own object, its pods and what these need
// (https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction).
type nodeRestriction struct {
	pods     Pods
	nodes    corelisters.NodeLister
	claims   corelisters.PersistentVolumeClaimLister
	volumes  corelisters.PersistentVolumeLister
	drivers  storagelisters.CSIDriverLister
	accounts ServiceAccounts
}

// newNodeRestriction makes the plug-in. It changes nothing, but looks at what nodes ask
// for before the defaults of the server and the webhooks come to it.
func newNodeRestriction(e *Environment) *plain {
	core := e.Informers.Core().V1()
	n := &nodeRestriction{e.Pods, core.Nodes().Lister(),
		core.PersistentVolumeClaims().Lister(), core.PersistentVolumes().Lister(), e.Informers.Storage().V1().CSIDrivers().Lister(), e.Accounts}
	concerns := func(a admission.Attributes) bool { return byNode(a) || joins(a) }
	return admits(&function{concerns: concerns, run: n.admit}, admission.Create, admission.Update, admission.Delete)
}

// joins reports whether the request creates a CertificateSigningRequest with a bootstrap
// token.
func joins(a admission.Attributes) bool {
	return a.GetOperation() == admission.Create && a.GetSubresource() == "" && a.GetResource().GroupResource() == requestResource &&
		slices.Contains(a.GetUserInfo().GetGroups(), bootstrapapi.BootstrapDefaultGroup)
}

// join refuses a client certificate for the name of a node that is Ready to the bearer of
// a bootstrap token, who would have all rights of that node. Upstream checks this in
// kubeadm only, on the machine that joins.
func (n *nodeRestriction) join(a admission.Attributes) error {
	r, ok := a.GetObject().(*certificatesv1.CertificateSigningRequest)
	if !ok {
		return fmt.Errorf("unexpected type %T", a.GetObject())
	}
	if r.Spec.SignerName != certificatesv1.KubeAPIServerClientKubeletSignerName {
		return nil
	}
	csr, err := parseRequest(r)
	if err != nil {
		return err
	}
	name := strings.TrimPrefix(csr.Subject.CommonName, "system:node:")
	o, err := n.nodes.Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if slices.ContainsFunc(o.Status.Conditions, func(c v1.NodeCondition) bool { return c.Type == v1.NodeReady && c.Status == v1.ConditionTrue }) {
		return fmt.Errorf("a Node with name %q and status %q already exists in the cluster. You must delete the existing Node or change the name of this new joining Node", name, v1.NodeReady)
	}
	return nil
}

// parseRequest reads the request in PEM.
func parseRequest(r *certificatesv1.CertificateSigningRequest) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(r.Spec.Request)
	if block == nil {
		return nil, errors.New("unable to parse csr: PEM block type must be CERTIFICATE REQUEST")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("unable to parse csr: %w", err)
	}
	return csr, nil
}

// byNode reports whether the request is a node's.
func byNode(a admission.Attributes) bool {
	_, is := authz.NodeName(a.GetUserInfo())
	return is
}

func (n *nodeRestriction) admit(ctx context.Context, a admission.Attributes) error {
	node, is := authz.NodeName(a.GetUserInfo())
	if !is {
		if err := n.join(a); err != nil {
			return admission.NewForbidden(a, err)
		}
		return nil
	}
	if node == "" {
		return admission.NewForbidden(a, fmt.Errorf("could not determine node from user %q", a.GetUserInfo().GetName()))
	}
	err := n.check(ctx, node, a)
	if err == nil || apierrors.IsNotFound(err) {
		return err
	}
	return admission.NewForbidden(a, err)
}

func (n *nodeRestriction) check(ctx context.Context, node string, a admission.Attributes) error {
	op, sub := a.GetOperation(), a.GetSubresource()
	switch a.GetResource().GroupResource() {
	case podResource:
		switch sub {
		case "":
			return n.pod(ctx, node, a)
		case "status":
			return podStatus(node, a)
		case "eviction":
			return n.eviction(ctx, node, a)
		}
		return fmt.Errorf("unexpected pod subresource %q, only 'status' and 'eviction' are allowed", sub)
	case schema.GroupResource{Resource: "nodes"}:
		return ownNode(node, a)
	case schema.GroupResource{Resource: "persistentvolumeclaims"}:
		if sub != "status" {
			return errors.New("may only update PVC status")
		}
		return claimStatus(node, a)
	case schema.GroupResource{Resource: "persistentvolumes"}:
		return localVolume(node, a)
	case schema.GroupResource{Resource: "serviceaccounts"}:
		if op == admission.Create && sub == "token" {
			return n.token(ctx, node, a)
		}
	case schema.GroupResource{Group: coordinationv1.GroupName, Resource: "leases"}:
		if a.GetNamespace() != v1.NamespaceNodeLease {
			return fmt.Errorf("can only access leases in the %q system namespace", v1.NamespaceNodeLease)
		}
		if op != admission.Create && a.GetName() != node || op == admission.Create && nameOf(a) != node {
			return errors.New("can only access node lease with the same name as the requesting node")
		}
	case schema.GroupResource{Group: storagev1.GroupName, Resource: "csinodes"}:
		if op != admission.Create && a.GetName() != node || op == admission.Create && nameOf(a) != node {
			return errors.New("can only access CSINode with the same name as the requesting node")
		}
	case schema.GroupResource{Group: storagev1.GroupName, Resource: "csistoragecapacities"}:
		return localCapacity(node, a)
	case schema.GroupResource{Group: resourcev1.GroupName, Resource: "resourceslices"}:
		switch s := a.GetObject().(type) {
		case *resourcev1.ResourceSlice:
			if op == admission.Create && ptr.Deref(s.Spec.NodeName, "") != node {
				return errors.New("can only create ResourceSlice with the same NodeName as the requesting node")
			}
		}
		if s, ok := a.GetOldObject().(*resourcev1.ResourceSlice); ok && op == admission.Delete && ptr.Deref(s.Spec.NodeName, "") != node {
			return errors.New("can only delete ResourceSlice with the same NodeName as the requesting node")
		}
	case requestResource:
		if op == admission.Create && sub == "" {
			return nodeRequest(node, a)
		}
	case schema.GroupResource{Group: certificatesv1.GroupName, Resource: "podcertificaterequests"}:
		switch {
		case op != admission.Create:
			return fmt.Errorf("unexpected operation %v", op)
		case sub != "":
			return fmt.Errorf("unexpected subresource %v", sub)
		}
		return n.podRequest(ctx, node, a)
	}
	return nil
}

// podRequest lets a node ask for a certificate for a pod that runs on it, in that
// pod's name and no other: signers go by what is here.
func (n *nodeRestriction) podRequest(ctx context.Context, node string, a admission.Attributes) error {
	r, ok := a.GetObject().(*certificatesv1.PodCertificateRequest)
	if !ok {
		return fmt.Errorf("unexpected type %T", a.GetObject())
	}
	if string(r.Spec.NodeName) != node {
		return fmt.Errorf("PodCertificateRequest.Spec.NodeName=%q, which is not the requesting node %q", r.Spec.NodeName, node)
	}
	p, err := n.pods.Pod(ctx, a.GetNamespace(), r.Spec.PodName)
	if err != nil {
		return err
	}
	switch {
	case p.UID != r.Spec.PodUID:
		return fmt.Errorf("PodCertificateRequest.Spec.PodUID=%q, but the UID of pod %q is %q", r.Spec.PodUID, p.Name, p.UID)
	case p.Annotations[v1.MirrorPodAnnotationKey] != "":
		return fmt.Errorf("pod %q is a mirror pod, for which no certificates are requested", p.Name)
	case p.Spec.NodeName != node:
		return fmt.Errorf("pod %q is scheduled on node %q, which is not the requesting node %q", p.Name, p.Spec.NodeName, node)
	case p.Spec.ServiceAccountName != r.Spec.ServiceAccountName:
		return fmt.Errorf("PodCertificateRequest.Spec.ServiceAccountName=%q, but pod %q runs as %q", r.Spec.ServiceAccountName, p.Name, p.Spec.ServiceAccountName)
	}
	account, err := n.accounts.ServiceAccount(ctx, a.GetNamespace(), r.Spec.ServiceAccountName)
	if err != nil {
		return err
	}
	if account.UID != r.Spec.ServiceAccountUID {
		return fmt.Errorf("PodCertificateRequest.Spec.ServiceAccountUID=%q, but the UID of service account %q is %q", r.Spec.ServiceAccountUID, account.Name, account.UID)
	}
	own, err := n.nodes.Get(node)
	if err != nil {
		return err
	}
	if own.UID != r.Spec.NodeUID {
		return fmt.Errorf("PodCertificateRequest.Spec.NodeUID=%q, but the UID of node %q is %q", r.Spec.NodeUID, node, own.UID)
	}
	return nil
}

func nameOf(a admission.Attributes) string {
	if o, ok := a.GetObject().(metav1.Object); ok {
		return o.GetName()
	}
	return ""
}

func (n *nodeRestriction) pod(ctx context.Context, node string, a admission.Attributes) error {
	switch a.GetOperation() {
	case admission.Create:
		p, ok := a.GetObject().(*v1.Pod)
		if !ok {
			return fmt.Errorf("unexpected type %T", a.GetObject())
		}
		return n.mirror(node, p)
	case admission.Delete:
		p, err := n.pods.Pod(ctx, a.GetNamespace(), a.GetName())
		if err != nil {
			return err
		}
		if p.Spec.NodeName != node {
			return fmt.Errorf("node %q can only delete pods with spec.nodeName set to itself", node)
		}
		return nil
	}
	return fmt.Errorf("unexpected operation %q, node %q can only create and delete mirror pods", a.GetOperation(), node)
}

// mirror checks a pod that a node creates: it must be the mirror of a static
// pod of the node, and use no objects.
func (n *nodeRestriction) mirror(node string, p *v1.Pod) error {
	if _, is := p.Annotations[v1.MirrorPodAnnotationKey]; !is {
		return fmt.Errorf("pod does not have %q annotation, node %q can only create mirror pods", v1.MirrorPodAnnotationKey, node)
	}
	if p.Spec.NodeName != node {
		return fmt.Errorf("node %q can only create pods with spec.nodeName set to itself", node)
	}
	switch len(p.OwnerReferences) {
	case 0:
		return fmt.Errorf("node %q can only create pods with an owner reference set to itself", node)
	case 1:
	default:
		return fmt.Errorf("node %q can only create pods with a single owner reference set to itself", node)
	}
	o := p.OwnerReferences[0]
	switch {
	case o.APIVersion != "v1" || o.Kind != "Node" || o.Name != node:
		return fmt.Errorf("node %q can only create pods with an owner reference set to itself", node)
	case !ptr.Deref(o.Controller, false):
		return fmt.Errorf("node %q can only create pods with a controller owner reference set to itself", node)
	case ptr.Deref(o.BlockOwnerDeletion, false):
		return fmt.Errorf("node %q must not set blockOwnerDeletion on an owner reference", node)
	}
	object, err := n.nodes.Get(node)
	if err != nil {
		return err
	}
	if o.UID != object.UID {
		return fmt.Errorf("node %s UID mismatch: expected %s got %s", node, o.UID, object.UID)
	}
	forbidden := func(what string) error {
		return fmt.Errorf("node %q can not create pods that reference %s", node, what)
	}
	r := podspec.References(p)
	switch {
	case p.Spec.ServiceAccountName != "":
		return forbidden("a service account")
	case len(r.Secrets) > 0:
		return forbidden("secrets")
	case len(r.ConfigMaps) > 0:
		return forbidden("configmaps")
	case len(r.Claims) > 0:
		return forbidden("persistentvolumeclaims")
	case len(p.Spec.ResourceClaims) > 0:
		return forbidden("resourceclaims")
	}
	resource, err := podspec.APIReference(p)
	if err != nil {
		return err
	}
	if resource != "" {
		return forbidden(resource)
	}
	return nil
}

func podStatus(node string, a admission.Attributes) error {
	if a.GetOperation() != admission.Update {
		return fmt.Errorf("unexpected operation %q", a.GetOperation())
	}
	old, ok := a.GetOldObject().(*v1.Pod)
	p, is := a.GetObject().(*v1.Pod)
	switch {
	case !ok || !is:
		return fmt.Errorf("unexpected type %T", a.GetObject())
	case old.Spec.NodeName != node:
		return fmt.Errorf("node %q can only update pod status for pods with spec.nodeName set to itself", node)
	case !equality.Semantic.DeepEqual(old.Labels, p.Labels):
		return fmt.Errorf("node %q cannot update labels through pod status", node)
	case !equality.Semantic.DeepEqual(old.Status.ResourceClaimStatuses, p.Status.ResourceClaimStatuses):
		return fmt.Errorf("node %q cannot update resource claim statues", node)
	case !equality.Semantic.DeepEqual(old.Status.ExtendedResourceClaimStatus, p.Status.ExtendedResourceClaimStatus):
		return fmt.Errorf("node %q cannot update extended resource claim status", node)
	}
	return nil
}

func (n *nodeRestriction) eviction(ctx context.Context, node string, a admission.Attributes) error {
	if a.GetOperation() != admission.Create {
		return fmt.Errorf("unexpected operation %s", a.GetOperation())
	}
	e, ok := a.GetObject().(*policyv1.Eviction)
	if !ok {
		return fmt.Errorf("unexpected type %T", a.GetObject())
	}
	name := a.GetName()
	if name == "" {
		name = e.Name
	}
	if name == "" {
		return errors.New("could not determine pod from request data")
	}
	p, err := n.pods.Pod(ctx, a.GetNamespace(), name)
	if err != nil {
		return err
	}
	if p.Spec.NodeName != node {
		return fmt.Errorf("node %s can only evict pods with spec.nodeName set to itself", node)
	}
	return nil
}

func ownNode(node string, a admission.Attributes) error {
	name := a.GetName()
	if a.GetOperation() == admission.Create {
		name = nameOf(a)
	}
	if name != node {
		return fmt.Errorf("node %q is not allowed to modify node %q", node, name)
	}
	if a.GetOperation() == admission.Delete {
		return nil
	}
	is, ok := a.GetObject().(*v1.Node)
	if !ok {
		return fmt.Errorf("unexpected type %T", a.GetObject())
	}
	if a.GetOperation() == admission.Create {
		if is.Spec.ConfigSource != nil {
			return fmt.Errorf("node %q is not allowed to create pods with a non-nil configSource", node)
		}
		// Upstream allows it. But here every node routes packets by the other Nodes'
		// ranges, so that a node which chooses its own could draw any traffic of the
		// cluster to itself.
		if len(is.Spec.PodCIDRs) > 0 {
			return fmt.Errorf("node %q is not allowed to set spec.podCIDRs", node)
		}
		if bad := forbiddenLabels(is.Labels, nil); len(bad) > 0 {
			return fmt.Errorf("node %q is not allowed to set the following labels: %s", node, strings.Join(bad, ", "))
		}
		return external(node, is, nil)
	}
	old, ok := a.GetOldObject().(*v1.Node)
	if !ok {
		return fmt.Errorf("unexpected type %T", a.GetOldObject())
	}
	if is.Spec.ConfigSource != nil && !equality.Semantic.DeepEqual(is.Spec.ConfigSource, old.Spec.ConfigSource) {
		return fmt.Errorf("node %q is not allowed to update configSource to a new non-nil configSource", node)
	}
	if !equality.Semantic.DeepEqual(is.Spec.Taints, old.Spec.Taints) {
		return fmt.Errorf("node %q is not allowed to modify taints", node)
	}
	if !slices.Equal(is.Spec.PodCIDRs, old.Spec.PodCIDRs) {
		return fmt.Errorf("node %q is not allowed to modify spec.podCIDRs", node)
	}
	if bad := forbiddenLabels(is.Labels, old.Labels); len(bad) > 0 {
		return fmt.Errorf("is not allowed to modify labels: %s", strings.Join(bad, ", "))
	}
	if !equality.Semantic.DeepEqual(is.OwnerReferences, old.OwnerReferences) {
		return fmt.Errorf("node %q is not allowed to modify ownerReferences", node)
	}
	return external(node, is, old)
}

// external refuses an external address that the node gives itself. Upstream allows it, but a
// kubelet has none: they are of a cloud's controller manager or of an administrator. Here
// Services have them as load balancers' addresses.
func external(node string, is, old *v1.Node) error {
	for _, a := range is.Status.Addresses {
		if (a.Type == v1.NodeExternalIP || a.Type == v1.NodeExternalDNS) && (old == nil || !slices.Contains(old.Status.Addresses, a)) {
			return fmt.Errorf("node %q is not allowed to add an address of the type %s", node, a.Type)
		}
	}
	return nil
}

// nodeLabels are the labels of Kubernetes that a node may give itself;
// nodePrefixes are domains in which it may give itself any.
var (
	nodeLabels = sets.New(v1.LabelHostname, v1.LabelTopologyZone, v1.LabelTopologyRegion, v1.LabelFailureDomainBetaZone, v1.LabelFailureDomainBetaRegion,
		v1.LabelInstanceType, v1.LabelInstanceTypeStable, v1.LabelOSStable, v1.LabelArchStable, "beta.kubernetes.io/os", "beta.kubernetes.io/arch", v1.LabelWindowsBuild)
	nodeDomains = []string{"kubelet.kubernetes.io", "node.kubernetes.io"}
)

// forbiddenLabels returns the keys of labels that differ and are not a node's to set.
func forbiddenLabels(is, was map[string]string) (bad []string) {
	within := func(domain, parent string) bool { return domain == parent || strings.HasSuffix(domain, "."+parent) }
	keys := sets.KeySet(is).Union(sets.KeySet(was))
	for _, k := range sets.List(keys) {
		x, has := is[k]
		y, had := was[k]
		if has == had && x == y {
			continue
		}
		domain, _, ok := strings.Cut(k, "/")
		if !ok {
			continue
		}
		ours := within(domain, "kubernetes.io") || within(domain, "k8s.io")
		mine := nodeLabels.Has(k) || slices.ContainsFunc(nodeDomains, func(d string) bool { return within(domain, d) })
		if within(domain, v1.LabelNamespaceNodeRestriction) || ours && !mine {
			bad = append(bad, k)
		}
	}
	return bad
}

func claimStatus(node string, a admission.Attributes) error {
	if a.GetOperation() != admission.Update {
		return fmt.Errorf("unexpected operation %q", a.GetOperation())
	}
	old, ok := a.GetOldObject().(*v1.PersistentVolumeClaim)
	is, also := a.GetObject().(*v1.PersistentVolumeClaim)
	if !ok || !also {
		return fmt.Errorf("unexpected type %T", a.GetObject())
	}
	rest := func(c *v1.PersistentVolumeClaim) *v1.PersistentVolumeClaim {
		c = c.DeepCopy()
		c.TypeMeta, c.ResourceVersion, c.ManagedFields = metav1.TypeMeta{}, "", nil
		c.Status.Capacity, c.Status.Conditions, c.Status.AllocatedResources, c.Status.AllocatedResourceStatuses = nil, nil, nil, nil
		return c
	}
	if !equality.Semantic.DeepEqual(rest(old), rest(is)) {
		return fmt.Errorf("node %q is not allowed to update fields other than status.capacity and status.conditions", node)
	}
	return nil
}

// localVolume keeps a node to the volumes that the local driver has on it, where
// a role lets it write volumes at all: others' are not its to make, change or
// delete, nor may it make its own another's.
func localVolume(node string, a admission.Attributes) error {
	if a.GetSubresource() != "" {
		return fmt.Errorf("unexpected subresource %q", a.GetSubresource())
	}
	old, had := a.GetOldObject().(*v1.PersistentVolume)
	now, has := a.GetObject().(*v1.PersistentVolume)
	if !had && !has {
		return fmt.Errorf("unexpected operation %q", a.GetOperation())
	}
	for _, v := range []*v1.PersistentVolume{old, now} {
		if v == nil {
			continue
		}
		if v.Spec.CSI == nil || v.Spec.CSI.Driver != LocalDriver || !slices.Equal(nodesOf(v), []string{node}) {
			return fmt.Errorf("node %q may only write PersistentVolumes of the driver %s whose node affinity is to itself", node, LocalDriver)
		}
	}
	return nil
}

// localCapacity keeps a node, where a role lets it write capacities at all, to those of
// the local driver's volumes on it.
func localCapacity(node string, a admission.Attributes) error {
	old, had := a.GetOldObject().(*storagev1.CSIStorageCapacity)
	now, has := a.GetObject().(*storagev1.CSIStorageCapacity)
	if !had && !has {
		return fmt.Errorf("unexpected operation %q", a.GetOperation())
	}
	own := &metav1.LabelSelector{MatchLabels: map[string]string{"topology." + LocalDriver + "/node": node}}
	for _, c := range []*storagev1.CSIStorageCapacity{old, now} {
		if c != nil && !equality.Semantic.DeepEqual(c.NodeTopology, own) {
			return fmt.Errorf("node %q may only write CSIStorageCapacities of the driver %s whose node topology is itself", node, LocalDriver)
		}
	}
	return nil
}

// LocalDriver is the CSI driver that nodes have built in.
const LocalDriver = "local.csi.keelson.dev"

// nodesOf returns the nodes that a volume of the local driver is bound to.
func nodesOf(v *v1.PersistentVolume) []string {
	a := v.Spec.NodeAffinity
	if a == nil || a.Required == nil || len(a.Required.NodeSelectorTerms) != 1 || len(a.Required.NodeSelectorTerms[0].MatchExpressions) != 1 {
		return nil
	}
	e := a.Required.NodeSelectorTerms[0].MatchExpressions[0]
	if e.Key != "topology."+LocalDriver+"/node" || e.Operator != v1.NodeSelectorOpIn {
		return nil
	}
	return e.Values
}

// token checks that a node asks for a token that is bound to one of its own
// pods, for an audience that the pod names.
func (n *nodeRestriction) token(ctx context.Context, node string, a admission.Attributes) error {
	r, ok := a.GetObject().(*authenticationv1.TokenRequest)
	if !ok {
		return fmt.Errorf("unexpected type %T", a.GetObject())
	}
	ref := r.Spec.BoundObjectRef
	switch {
	case ref == nil || ref.APIVersion != "v1" || ref.Kind != "Pod" || ref.Name == "":
		return errors.New("node requested token not bound to a pod")
	case ref.UID == "":
		return fmt.Errorf("node requested token with a pod binding without a uid")
	}
	p, err := n.pods.Pod(ctx, a.GetNamespace(), ref.Name)
	if err != nil {
		return err
	}
	switch {
	case ref.UID != p.UID:
		return fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", ref.UID)
	case p.Spec.NodeName != node:
		return errors.New("node requested token bound to a pod scheduled on a different node")
	}
	for _, audience := range r.Spec.Audiences {
		if audience != "" && !n.wants(p, audience) {
			return fmt.Errorf("audience %q not found in pod spec volume", audience)
		}
	}
	return nil
}

// wants reports whether a volume of the pod needs tokens for the audience.
func (n *nodeRestriction) wants(p *v1.Pod, audience string) bool {
	var drivers []string
	claim := func(name string) {
		c, err := n.claims.PersistentVolumeClaims(p.Namespace).Get(name)
		if err != nil {
			return
		}
		if v, err := n.volumes.Get(c.Spec.VolumeName); err == nil && v.Spec.CSI != nil {
			drivers = append(drivers, v.Spec.CSI.Driver)
		}
	}
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		switch {
		case v.Projected != nil:
			for _, s := range v.Projected.Sources {
				if s.ServiceAccountToken != nil && s.ServiceAccountToken.Audience == audience {
					return true
				}
			}
		case v.CSI != nil:
			drivers = append(drivers, v.CSI.Driver)
		default:
			if name := podspec.ClaimName(p, v); name != "" {
				claim(name)
			}
		}
	}
	return slices.ContainsFunc(drivers, func(name string) bool {
		d, err := n.drivers.Get(name)
		return err == nil && slices.ContainsFunc(d.Spec.TokenRequests, func(r storagev1.TokenRequest) bool { return r.Audience == audience })
	})
}

// nodeRequest checks that a node asks for a certificate of its own name.
func nodeRequest(node string, a admission.Attributes) error {
	r, ok := a.GetObject().(*certificatesv1.CertificateSigningRequest)
	if !ok {
		return fmt.Errorf("unexpected type %T", a.GetObject())
	}
	if r.Spec.SignerName != certificatesv1.KubeletServingSignerName && r.Spec.SignerName != certificatesv1.KubeAPIServerClientKubeletSignerName {
		return nil
	}
	csr, err := parseRequest(r)
	if err != nil {
		return err
	}
	if want := "system:node:" + node; csr.Subject.CommonName != want {
		return fmt.Errorf("can only create a node CSR with CN=%s", want)
	}
	return nil
}
