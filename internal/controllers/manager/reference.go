package manager

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// upstream is a controller of kube-controller-manager v1.37.
type upstream struct {
	name string
	// off is why it does not run by default there.
	off string
	// here, if set, says what does its work where no row does.
	here string
}

// upstreams are all of them, by name.
var upstreams = []upstream{
	{name: "bootstrap-signer-controller", off: "must be named in --controllers"},
	{name: "certificatesigningrequest-approving-controller"},
	{name: "certificatesigningrequest-cleaner-controller"},
	{name: "certificatesigningrequest-signing-controller"},
	{name: "cloud-node-lifecycle-controller", off: "the cloud's controller manager runs it ([network.md](network.md#on-a-cloud))"},
	{name: "clusterrole-aggregation-controller"},
	{name: "cronjob-controller"},
	{name: "daemonset-controller"},
	{name: "deployment-controller"},
	{name: "device-taint-eviction-controller"},
	{name: "disruption-controller"},
	{name: "endpoints-controller"},
	{name: "endpointslice-controller"},
	{name: "endpointslice-mirroring-controller"},
	{name: "ephemeral-volume-controller"},
	{name: "garbage-collector-controller"},
	{name: "horizontal-pod-autoscaler-controller"},
	{name: "job-controller"},
	{name: "kube-apiserver-serving-clustertrustbundle-publisher-controller"},
	{name: "legacy-serviceaccount-token-cleaner-controller"},
	{name: "namespace-controller"},
	{name: "node-ipam-controller"},
	{name: "node-lifecycle-controller"},
	{name: "node-route-controller", off: "the cloud's controller manager runs it ([network.md](network.md#on-a-cloud))"},
	{name: "persistentvolume-attach-detach-controller"},
	{name: "persistentvolume-binder-controller"},
	{name: "persistentvolume-expander-controller"},
	{name: "persistentvolume-protection-controller"},
	{name: "persistentvolumeclaim-protection-controller"},
	{name: "pod-garbage-collector-controller"},
	{name: "podcertificaterequest-cleaner-controller"},
	{name: "replicaset-controller"},
	{name: "replicationcontroller-controller"},
	{name: "resourceclaim-controller"},
	{name: "resourcequota-controller"},
	{name: "root-ca-certificate-publisher-controller"},
	{name: "selinux-warning-controller", off: "must be named in --controllers"},
	{name: "service-cidr-controller"},
	{name: "service-lb-controller"},
	{name: "serviceaccount-controller"},
	{name: "serviceaccount-token-controller"},
	{name: "statefulset-controller"},
	{name: "storage-version-migrator-controller"},
	{name: "storageversion-garbage-collector-controller", off: "its feature gate is off"},
	{name: "taint-eviction-controller"},
	{name: "token-cleaner-controller", off: "must be named in --controllers"},
	{name: "ttl-after-finished-controller"},
	{name: "ttl-controller"},
	{name: "validatingadmissionpolicy-status-controller"},
	{name: "volumeattributesclass-protection-controller"},
}

// Reference writes docs/controllers.md.
func Reference(w io.Writer) {
	rows := map[string]int{}
	for i := range table {
		rows[table[i].Name] = i
	}
	missing := 0
	for _, u := range upstreams {
		if _, ok := rows[u.name]; !ok && u.off == "" && u.here == "" {
			missing++
		}
	}
	fmt.Fprintf(w, "# Controllers\n\n"+
		"Each controller of kube-controller-manager v1.37, and those that Keelson has beside them. %d of those that run by default\n"+
		"there are missing. This page is printed by `go run ./cmd/keelson reference controllers > docs/controllers.md`, from the table in\n"+
		"internal/controllers/manager.\n\n"+
		"| controller | other names | account in kube-system | source of its events | watches |\n|---|---|---|---|---|\n", missing)
	line := func(name string) {
		i, ok := rows[name]
		if !ok {
			return
		}
		row := &table[i]
		var watches []string
		for _, gvr := range row.Watches {
			watches = append(watches, gvr.GroupResource().String())
		}
		slices.Sort(watches)
		all := strings.Join(watches, ", ")
		if all == "" {
			all = "every resource's metadata"
		}
		if row.Off {
			name += " (off, unless --controllers names it)"
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s |\n", name, strings.Join(row.Aliases, ", "), row.Identity, row.Component(), all)
	}
	for _, u := range upstreams {
		switch _, ok := rows[u.name]; {
		case ok:
			line(u.name)
		case u.here != "":
			fmt.Fprintf(w, "| %s | | | | %s |\n", u.name, u.here)
		case u.off != "":
			fmt.Fprintf(w, "| %s | | | | not here; off by default upstream: %s |\n", u.name, u.off)
		default:
			fmt.Fprintf(w, "| %s | | | | **missing** |\n", u.name)
		}
	}
	known := func(name string) bool {
		return slices.ContainsFunc(upstreams, func(u upstream) bool { return u.name == name })
	}
	for i := range table {
		if !known(table[i].Name) {
			line(table[i].Name)
		}
	}
}
