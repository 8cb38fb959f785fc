package manager

import (
	"bytes"
	"crypto/x509"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	rbac "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	discoveryfake "k8s.io/client-go/discovery/fake"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/metadata"
	metadatafake "k8s.io/client-go/metadata/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/apiserver/authz"
	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/network/lb"
	"keelson.dev/keelson/internal/nodegroup"
)

// TestTable checks the names, and that each account has a role.
func TestTable(t *testing.T) {
	accounts := sets.New("tokens-controller") // it acts as the controller manager itself
	for _, o := range authz.Bootstrap() {
		var subjects []rbac.Subject
		switch b := o.(type) {
		case *rbac.ClusterRoleBinding:
			subjects = b.Subjects
		case *rbac.RoleBinding:
			subjects = b.Subjects
		}
		for _, s := range subjects {
			if s.Kind == rbac.ServiceAccountKind && s.Namespace == metav1.NamespaceSystem {
				accounts.Insert(s.Name)
			}
		}
	}
	names := sets.New[string]()
	for i := range table {
		row := &table[i]
		for _, n := range append([]string{row.Name}, row.Aliases...) {
			if names.Has(n) {
				t.Errorf("two controllers have the name %q", n)
			}
			names.Insert(n)
		}
		if !strings.HasSuffix(row.Name, "-controller") {
			t.Errorf("%s: want a name that ends in -controller, as upstream's do", row.Name)
		}
		if !accounts.Has(row.Identity) {
			t.Errorf("%s: its account %q has no role", row.Name, row.Identity)
		}
	}
}

// informed returns the types that f has informers for.
func informed(f informers.SharedInformerFactory) sets.Set[reflect.Type] {
	stopped := make(chan struct{})
	close(stopped)
	f.Start(stopped) // which the factory returns for started ones only
	out := sets.New[reflect.Type]()
	for t := range f.WaitForCacheSync(stopped) {
		out.Insert(t)
	}
	f.Shutdown()
	return out
}

// TestWatches compares the informers that each constructor asks for with those
// that its row has.
func TestWatches(t *testing.T) {
	client := fake.NewClientset()
	metadataClient := metadatafake.NewSimpleMetadataClient(metadatafake.NewTestScheme())
	for i := range table {
		row := &table[i]
		have, want := informers.NewSharedInformerFactory(client, 0), informers.NewSharedInformerFactory(client, 0)
		c := controllers.Context{
			Clients:      func(string) kubernetes.Interface { return client },
			Metadatas:    func(string) metadata.Interface { return metadataClient },
			Configs:      func(string) *rest.Config { return &rest.Config{Host: "127.0.0.1"} },
			Broadcaster:  record.NewBroadcaster(),
			Informers:    have,
			Discovery:    &discoveryfake.FakeDiscovery{Fake: &clienttesting.Fake{}},
			RESTMapper:   meta.NewDefaultRESTMapper(nil),
			Clock:        clock.RealClock{},
			PodRanges:    []controllers.PodRange{{Cluster: netip.MustParsePrefix("10.0.0.0/16"), NodeBits: 24}},
			LoadBalancer: &lb.Options{},
			NodeGroups:   struct{ nodegroup.Provider }{},
			RootCA:       []byte("pem"),
			Sign:         func(*x509.Certificate, any) ([]byte, error) { return nil, nil },
			LegacyToken:  func(*v1.ServiceAccount, *v1.Secret) (string, error) { return "", nil },
		}
		run, err := row.New(c.For(row))
		if err != nil {
			t.Fatalf("%s: %v", row.Name, err)
		}
		c.Broadcaster.Shutdown()
		if run == nil {
			t.Errorf("%s is not made though the context has all that it can need", row.Name)
		}
		for _, gvr := range row.Watches {
			inf, err := want.ForResource(gvr)
			if err != nil {
				t.Fatalf("%s: %v", row.Name, err)
			}
			inf.Informer()
		}
		if a, b := informed(have), informed(want); !a.Equal(b) {
			t.Errorf("%s asks for informers of %v; its row has %v", row.Name, a.UnsortedList(), b.UnsortedList())
		}
	}
}

func TestSelect(t *testing.T) {
	for _, c := range []struct {
		list      string
		has, lack string
		err       string
	}{
		{list: "", has: "deployment-controller", lack: "selinux-warning-controller"},
		{list: "*,selinux-warning", has: "selinux-warning-controller"},
		{list: "*,-deployment", has: "replicaset-controller", lack: "deployment-controller"},
		{list: "-deployment-controller,*", lack: "deployment-controller"},
		{list: "podgc", has: "pod-garbage-collector-controller", lack: "deployment-controller"},
		{list: "deployment,-deployment", has: "deployment-controller", lack: "replicaset-controller"},
		{list: "*,-nonsense", err: `"nonsense" is not in the list of known controllers`},
	} {
		got, err := Select(strings.FieldsFunc(c.list, func(r rune) bool { return r == ',' }))
		if msg := ""; err != nil || c.err != "" {
			if err != nil {
				msg = err.Error()
			}
			if msg != c.err {
				t.Errorf("%q: %q, want %q", c.list, msg, c.err)
			}
			continue
		}
		if c.has != "" && !got.Has(c.has) || got.Has(c.lack) {
			t.Errorf("%q selects %v", c.list, sets.List(got))
		}
	}
}

// TestReference compares docs/controllers.md with the table.
func TestReference(t *testing.T) {
	var want bytes.Buffer
	Reference(&want)
	have, err := os.ReadFile("../../../docs/controllers.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, want.Bytes()) {
		t.Error("docs/controllers.md is not what the table is: run go run ./cmd/keelson reference controllers > docs/controllers.md")
	}
	if !slices.IsSortedFunc(upstreams, func(a, b upstream) int { return strings.Compare(a.name, b.name) }) {
		t.Error("upstream's controllers are not in order")
	}
}
