package authz

import (
	"maps"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
)

func granting(verbs, groups, resources string, names ...string) v1.PolicyRule {
	return v1.PolicyRule{Verbs: strings.Split(verbs, ","), APIGroups: strings.Split(groups, ","), Resources: strings.Split(resources, ","), ResourceNames: names}
}

func roleOf(name string, rules ...v1.PolicyRule) *v1.ClusterRole {
	return &v1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}
}

func subject(kind, namespace, name string) v1.Subject {
	return v1.Subject{Kind: kind, Namespace: namespace, Name: name}
}

func everywhere(role string, subjects ...v1.Subject) *v1.ClusterRoleBinding {
	return &v1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: role}, RoleRef: v1.RoleRef{Kind: "ClusterRole", Name: role}, Subjects: subjects}
}

func within(namespace, kind, role string, subjects ...v1.Subject) *v1.RoleBinding {
	return &v1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: role}, RoleRef: v1.RoleRef{Kind: kind, Name: role}, Subjects: subjects}
}

// newRBAC makes an authorizer of these roles and bindings.
func newRBAC(t *testing.T, objects ...runtime.Object) *RBAC {
	t.Helper()
	f := informers.NewSharedInformerFactory(fake.NewClientset(objects...), 0)
	r, err := NewRBAC(f.Rbac().V1())
	if err != nil {
		t.Fatal(err)
	}
	f.Rbac().V1().Roles().Informer()
	f.Rbac().V1().ClusterRoles().Informer()
	f.StartWithContext(t.Context())
	if res := f.WaitForCacheSyncWithContext(t.Context()); res.Err != nil {
		t.Fatal(res.Err)
	}
	t.Cleanup(f.Shutdown)
	return r
}

func who(name string, groups ...string) user.Info {
	return &user.DefaultInfo{Name: name, Groups: groups}
}

func TestRBAC(t *testing.T) {
	r := newRBAC(t,
		roleOf("reader", granting("get,list", "", "pods,services"), v1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: []string{"/healthz", "/logs/*"}}), everywhere("reader", subject("User", "", "jane"), subject("Group", "", "team")),
		roleOf("logs", granting("get", "", "pods/log")), everywhere("logs", subject("User", "", "joe")),
		roleOf("status", granting("update", "*", "*/status")), everywhere("status", subject("User", "", "joe")),
		roleOf("named", granting("get,update", "", "configmaps", "a", "b")), within("ns", "ClusterRole", "named", subject("User", "", "joe")),
		&v1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "secrets"}, Rules: []v1.PolicyRule{granting("*", "", "secrets")}}, within("ns", "Role", "secrets", subject("ServiceAccount", "", "robot"), subject("ServiceAccount", "other", "robot")),
		roleOf("all", granting("*", "*", "*")), everywhere("all", subject("Group", "", "roots")),
		everywhere("gone", subject("User", "", "lost")),
	)
	request := func(u user.Info, verb, namespace, resource, name string) authorizer.AttributesRecord {
		a := authorizer.AttributesRecord{User: u, Verb: verb, Namespace: namespace, Name: name, ResourceRequest: true}
		a.Resource, a.Subresource, _ = strings.Cut(resource, "/")
		a.Resource, a.APIGroup, _ = strings.Cut(a.Resource, ".")
		return a
	}
	path := func(u user.Info, verb, path string) authorizer.AttributesRecord {
		return authorizer.AttributesRecord{User: u, Verb: verb, Path: path}
	}
	jane, joe := who("jane"), who("joe")
	for _, c := range []struct {
		name  string
		a     authorizer.AttributesRecord
		allow bool
	}{
		{"everywhere", request(jane, "list", "", "pods", ""), true},
		{"in a namespace", request(jane, "get", "ns", "pods", "p"), true},
		{"another verb", request(jane, "delete", "ns", "pods", "p"), false},
		{"another resource", request(jane, "get", "ns", "secrets", "p"), false},
		{"another group's resource of the name", request(jane, "get", "ns", "pods.metrics.k8s.io", "p"), false},
		{"a subresource is not the resource", request(jane, "get", "ns", "pods/log", "p"), false},
		{"the resource is not its subresource", request(joe, "get", "ns", "pods", "p"), false},
		{"a subresource", request(joe, "get", "ns", "pods/log", "p"), true},
		{"a subresource of any", request(joe, "update", "ns", "deployments.apps/status", "d"), true},
		{"of any, another", request(joe, "update", "ns", "deployments.apps/scale", "d"), false},
		{"by a group", request(who("x", "team"), "get", "ns", "services", "s"), true},
		{"a group's name is no user's", request(who("team"), "get", "ns", "services", "s"), false},
		{"by name", request(joe, "update", "ns", "configmaps", "b"), true},
		{"by another name", request(joe, "update", "ns", "configmaps", "c"), false},
		{"a list has no name", request(joe, "get", "ns", "configmaps", ""), false},
		{"in another namespace", request(joe, "update", "other", "configmaps", "b"), false},
		{"an account of the binding's namespace", request(who("system:serviceaccount:ns:robot"), "deletecollection", "ns", "secrets", ""), true},
		{"an account of another namespace", request(who("system:serviceaccount:other:robot"), "get", "ns", "secrets", "x"), true},
		{"an account that is not named", request(who("system:serviceaccount:third:robot"), "get", "ns", "secrets", "x"), false},
		{"an account in a namespace where it is not bound", request(who("system:serviceaccount:other:robot"), "get", "other", "secrets", "x"), false},
		{"everything", request(who("x", "roots"), "approve", "ns", "things.example.com/any", "x"), true},
		{"everything is no path", path(who("x", "roots"), "get", "/metrics"), false},
		{"a path", path(jane, "get", "/healthz"), true},
		{"below a path", path(jane, "get", "/healthz/etcd"), false},
		{"below a path with a star", path(jane, "get", "/logs/a/b"), true},
		{"a path, another verb", path(jane, "post", "/healthz"), false},
		{"administrators", request(who("x", user.SystemPrivilegedGroup), "escalate", "", "clusterroles.rbac.authorization.k8s.io", "x"), true},
		{"a role that is not there", request(who("lost"), "get", "ns", "pods", "p"), false},
		{"nobody", authorizer.AttributesRecord{Verb: "get", ResourceRequest: true, Resource: "pods"}, false},
	} {
		d, reason, err := r.Authorize(t.Context(), c.a)
		if err != nil || (d == authorizer.DecisionAllow) != c.allow || d == authorizer.DecisionDeny {
			t.Errorf("%s: %v (%s, %v), want %t", c.name, d, reason, err, c.allow)
		}
	}
	if _, reason, _ := r.Authorize(t.Context(), request(jane, "list", "", "pods", "")); reason != `RBAC: allowed by ClusterRoleBinding "reader" of ClusterRole "reader" to User "jane"` {
		t.Errorf("the reason is %q", reason)
	}
	if _, reason, _ := r.Authorize(t.Context(), request(who("lost"), "get", "ns", "pods", "p")); !strings.Contains(reason, `clusterrole.rbac.authorization.k8s.io "gone" not found`) {
		t.Errorf("the reason of a role that is not there is %q", reason)
	}
	resources, paths, _, err := r.RulesFor(t.Context(), joe, "ns")
	if err != nil || len(resources) != 3 || len(paths) != 0 {
		t.Errorf("joe's rules are %v, %v, %v", resources, paths, err)
	}
}

// TestSince asks for rights that have been there since revision 10.
func TestSince(t *testing.T) {
	at := func(version string, o metav1.Object) runtime.Object {
		o.SetResourceVersion(version)
		return o.(runtime.Object)
	}
	r := newRBAC(t,
		at("9", roleOf("old", granting("get", "", "pods"))), at("11", roleOf("new", granting("get", "", "pods"))), at("none", roleOf("odd", granting("get", "", "pods"))),
		at("8", everywhere("old", subject("User", "", "jane"))), at("8", everywhere("new", subject("User", "", "joe"))), at("8", everywhere("odd", subject("User", "", "ann"))),
		at("10", within("then", "ClusterRole", "old", subject("User", "", "sam"))), at("12", within("later", "ClusterRole", "old", subject("User", "", "sam"))),
		at("8", everywhere("system:node", subject("User", "", "nobody"))),
	)
	all, err := New(Selection{Modes: []string{ModeNode, ModeRBAC}}, NewNode(nil), r, nil)
	if err != nil {
		t.Fatal(err)
	}
	open, err := New(Selection{Modes: []string{ModeAlwaysAllow}}, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	node := who("system:node:n", user.NodesGroup)
	for _, c := range []struct {
		name      string
		by        authorizer.Authorizer
		u         user.Info
		namespace string
		now, then bool
	}{
		{"unchanged", all, who("jane"), "ns", true, true},
		{"another role", all, who("joe"), "ns", true, false},
		{"a role without a revision", all, who("ann"), "ns", true, false},
		{"a binding", all, who("sam"), "then", true, true},
		{"another binding", all, who("sam"), "later", true, false},
		{"nobody", all, who("lost"), "ns", false, false},
		{"an administrator", all, who("x", user.SystemPrivilegedGroup), "ns", true, true},
		{"everyone", open, who("lost"), "ns", true, true},
	} {
		a := authorizer.AttributesRecord{User: c.u, Verb: "get", Namespace: c.namespace, Resource: "pods", Name: "p", ResourceRequest: true}
		now, _, err := c.by.Authorize(t.Context(), a)
		then, _, err2 := c.by.Authorize(Since(t.Context(), 10), a)
		aware := c.by.ConditionsAwareAuthorize(Since(t.Context(), 10), a)
		if err != nil || err2 != nil || (now == authorizer.DecisionAllow) != c.now || (then == authorizer.DecisionAllow) != c.then || aware.IsAllow() != c.then {
			t.Errorf("%s: now %v (%v), then %v (%v), %v; want %v, %v", c.name, now, err, then, err2, aware, c.now, c.then)
		}
	}
	own := authorizer.AttributesRecord{User: node, Verb: "get", APIGroup: "", Resource: "nodes", Name: "n", ResourceRequest: true}
	if d, _, _ := all.Authorize(t.Context(), own); d != authorizer.DecisionAllow {
		t.Error("a node may not read its Node")
	}
	if d, _, _ := all.Authorize(Since(t.Context(), 10), own); d == authorizer.DecisionAllow {
		t.Error("a node may read the past")
	}
}

// TestCovers checks that no user can grant permissions that the user does not
// have.
func TestCovers(t *testing.T) {
	r := newRBAC(t,
		roleOf("reader", granting("get,list", "", "pods,services")), everywhere("reader", subject("User", "", "jane")),
		roleOf("named", granting("get", "", "secrets", "a", "b")), everywhere("named", subject("User", "", "jane")),
		roleOf("paths", v1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: []string{"/logs/*"}}), everywhere("paths", subject("User", "", "jane")),
		&v1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "writer"}, Rules: []v1.PolicyRule{granting("*", "apps", "deployments")}}, within("ns", "Role", "writer", subject("User", "", "jane")),
		everywhere("gone", subject("User", "", "jane")),
	)
	jane := who("jane", "team")
	for _, c := range []struct {
		name      string
		u         user.Info
		namespace string
		rules     []v1.PolicyRule
		missing   []string // parts of the message
	}{
		{"nothing", jane, "", nil, nil},
		{"a part", jane, "", []v1.PolicyRule{granting("get", "", "pods")}, nil},
		{"of two rules", jane, "ns", []v1.PolicyRule{granting("get", "", "services"), granting("patch", "apps", "deployments")}, nil},
		{"one verb more", jane, "", []v1.PolicyRule{granting("get,delete", "", "pods")}, []string{`{APIGroups:[""], Resources:["pods"], Verbs:["delete"]}`}},
		{"every verb", jane, "", []v1.PolicyRule{granting("*", "", "pods")}, []string{`Verbs:["*"]`}},
		{"every resource", jane, "", []v1.PolicyRule{granting("get", "", "*")}, []string{`Resources:["*"]`}},
		{"a subresource", jane, "", []v1.PolicyRule{granting("get", "", "pods/exec")}, []string{`pods/exec`}},
		{"a name", jane, "", []v1.PolicyRule{granting("get", "", "secrets", "a")}, nil},
		{"another name", jane, "", []v1.PolicyRule{granting("get", "", "secrets", "a", "c")}, []string{`ResourceNames:["c"]`}},
		{"all names", jane, "", []v1.PolicyRule{granting("get", "", "secrets")}, []string{`secrets`}},
		{"a path", jane, "", []v1.PolicyRule{{Verbs: []string{"get"}, NonResourceURLs: []string{"/logs/x", "/logs/*"}}}, nil},
		{"another path", jane, "", []v1.PolicyRule{{Verbs: []string{"get"}, NonResourceURLs: []string{"/metrics"}}}, []string{`NonResourceURLs:["/metrics"]`}},
		{"what is held in one namespace only", jane, "other", []v1.PolicyRule{granting("get", "apps", "deployments")}, []string{`deployments`}},
		{"and not everywhere", jane, "", []v1.PolicyRule{granting("get", "apps", "deployments")}, []string{`deployments`}},
		{"administrators", who("x", user.SystemPrivilegedGroup), "", []v1.PolicyRule{granting("*", "*", "*")}, nil},
	} {
		err := r.Covers(c.u, c.namespace, c.rules)
		if (err == nil) != (len(c.missing) == 0) {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if err == nil {
			continue
		}
		for _, want := range slices.Concat(c.missing, []string{`user "jane" (groups=["team"]) is attempting to grant RBAC permissions not currently held:` + "\n", "resolution errors: ["}) {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %s in it", c.name, err, want)
			}
		}
	}
}

func TestAggregate(t *testing.T) {
	labelled := func(name, label string, rules ...v1.PolicyRule) *v1.ClusterRole {
		r := roleOf(name, rules...)
		r.Labels = map[string]string{label: "true"}
		return r
	}
	sum := roleOf("sum")
	sum.AggregationRule = &v1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{"a": "true"}}, {MatchLabels: map[string]string{"b": "true"}}}}
	sum.Labels = map[string]string{"a": "true"} // it is no part of itself
	all := []*v1.ClusterRole{sum, labelled("2", "a", granting("get", "", "pods"), granting("get", "", "secrets")), labelled("1", "b", granting("get", "", "pods"), granting("list", "", "nodes")), labelled("3", "c", granting("*", "*", "*"))}
	rules, err := Aggregate(sum, all)
	if err != nil || len(rules) != 3 {
		t.Fatalf("%v, %v", rules, err)
	}
	if got := strings.Join(describe(rules), ";"); !strings.Contains(got, `"pods"`) || !strings.Contains(got, `"nodes"`) || !strings.Contains(got, `"secrets"`) {
		t.Error(got)
	}
	sum.AggregationRule.ClusterRoleSelectors[0] = metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Near"}}}
	if _, err := Aggregate(sum, all); err == nil {
		t.Error("a selector that cannot be is taken")
	}
}

// TestSigners checks that no controller answers for more signers than it works for: whoever
// had its account could else make itself a certificate of any signer.
func TestSigners(t *testing.T) {
	want := map[string][]string{
		"certificate-controller approve":                             {"kubernetes.io/kube-apiserver-client-kubelet"},
		"certificate-controller sign":                                {"kubernetes.io/kube-apiserver-client", "kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving", "kubernetes.io/legacy-unknown"},
		"kubelet-serving-approver approve":                           {"kubernetes.io/kubelet-serving"},
		"kube-apiserver-serving-clustertrustbundle-publisher attest": {"kubernetes.io/kube-apiserver-serving"},
	}
	got := map[string][]string{}
	for _, c := range controllerRoles() {
		for _, r := range c.rules {
			if slices.Contains(r.Resources, "signers") {
				for _, v := range r.Verbs {
					got[c.name+" "+v] = append(got[c.name+" "+v], r.ResourceNames...)
				}
			}
		}
	}
	if !maps.EqualFunc(want, got, slices.Equal) {
		t.Errorf("%v, want %v", got, want)
	}
}
