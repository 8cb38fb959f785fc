package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"strings"

	imagev1 "github.com/google/go-containerregistry/pkg/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	apiregistration "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-aggregator/pkg/apis/apiregistration/v1/helper"
	aggregator "k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset"

	"keelson.dev/keelson/test/aggregation"
	"keelson.dev/keelson/test/harness/imagetest"
)

// sampleImages returns images of upstream's sample API server and this machine's
// etcd.
func (t *T) sampleImages() (server, etcd string) {
	t.Helper()
	const path = "/usr/bin/etcd"
	data := imagetest.NewLayer(t)
	data.Copy(path)
	data.Libraries(path)
	data.Dir("/tmp", 0o1777)
	etcd = imagetest.Push(t, data.Image(imagev1.Config{Entrypoint: []string{path}}), "etcd:1", t.machines...)
	program := imagetest.NewLayer(t)
	program.CopyAs(aggregation.Build(t), "/sample-apiserver")
	program.Dir("/tmp", 0o1777)
	return imagetest.Push(t, program.Image(imagev1.Config{Entrypoint: []string{"/sample-apiserver"}}), "sample-apiserver:1", t.machines...), etcd
}

// sampleAPIServer runs the sample API server in the test's namespace behind a
// Service, with an etcd and the rights and configuration that it needs.
func (t *T) sampleAPIServer() (ca []byte) {
	t.Helper()
	server, etcd := t.sampleImages()
	cert, ca := t.servingCert("sample-api." + t.NS + ".svc")
	key := t.privateKey(cert)
	_, err := t.Client.CoreV1().Secrets(t.NS).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "sample-apiserver-secret"},
		Data: map[string][]byte{"tls.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}), "tls.key": key}}, create)
	t.must(err)
	// The API server is reached at its endpoint: Services are tested elsewhere.
	slice := got[*discoveryv1.EndpointSlice](t)(t.Client.DiscoveryV1().EndpointSlices("default").Get(t.Context(), "kubernetes", get))
	yaml := strings.NewReplacer("<ns>", t.NS, "<server>", server, "<etcd>", etcd, "<host>", slice.Endpoints[0].Addresses[0], "<port>", string(patchOf(*slice.Ports[0].Port))).Replace(`
apiVersion: v1
kind: List
items:
- apiVersion: rbac.authorization.k8s.io/v1
  kind: ClusterRole
  metadata: {name: sample-apiserver-<ns>}
  rules:
  - {apiGroups: [""], resources: [namespaces], verbs: [get, list, watch]}
  - {apiGroups: [admissionregistration.k8s.io], resources: ["*"], verbs: [get, list, watch]}
  - {apiGroups: [flowcontrol.apiserver.k8s.io], resources: [flowschemas, prioritylevelconfigurations], verbs: [list, watch]}
- apiVersion: rbac.authorization.k8s.io/v1
  kind: ClusterRoleBinding
  metadata: {name: sample-apiserver-<ns>}
  roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: sample-apiserver-<ns>}
  subjects: [{kind: ServiceAccount, name: default, namespace: <ns>}]
- apiVersion: rbac.authorization.k8s.io/v1
  kind: ClusterRoleBinding
  metadata: {name: "<ns>:auth-delegator"}
  roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:auth-delegator"}
  subjects: [{kind: ServiceAccount, name: default, namespace: <ns>}]
- apiVersion: v1
  kind: Service
  metadata: {name: sample-api, namespace: <ns>, labels: {test: aggregator}}
  spec: {selector: {apiserver: "true"}, ports: [{protocol: TCP, port: 7443, targetPort: 443}]}
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: sample-apiserver-deployment, namespace: <ns>}
  spec:
    replicas: 1
    selector: {matchLabels: {app: sample-apiserver, apiserver: "true"}}
    template:
      metadata: {labels: {app: sample-apiserver, apiserver: "true"}}
      spec:
        terminationGracePeriodSeconds: 0
        volumes: [{name: apiserver-certs, secret: {secretName: sample-apiserver-secret}}]
        containers:
        - name: sample-apiserver
          image: <server>
          args:
          - --etcd-servers=http://127.0.0.1:2379
          - --tls-cert-file=/apiserver.local.config/certificates/tls.crt
          - --tls-private-key-file=/apiserver.local.config/certificates/tls.key
          - --audit-log-path=-
          - --audit-log-maxage=0
          - --audit-log-maxbackup=0
          env: [{name: KUBERNETES_SERVICE_HOST, value: "<host>"}, {name: KUBERNETES_SERVICE_PORT, value: "<port>"}]
          volumeMounts: [{name: apiserver-certs, readOnly: true, mountPath: /apiserver.local.config/certificates}]
          readinessProbe: {httpGet: {scheme: HTTPS, port: 443, path: /readyz}, periodSeconds: 1}
        - {name: etcd, image: <etcd>, args: [--data-dir=/tmp/etcd, --log-level=error]}
`)
	_, err = t.Client.RbacV1().RoleBindings("kube-system").Create(t.Context(), &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "auth-reader-" + t.NS},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "extension-apiserver-authentication-reader"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: t.NS, Name: "default"}}}, create)
	t.must(err)
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		for _, err := range []error{
			t.Client.RbacV1().RoleBindings("kube-system").Delete(ctx, "auth-reader-"+t.NS, remove),
			t.Client.RbacV1().ClusterRoleBindings().Delete(ctx, "sample-apiserver-"+t.NS, remove),
			t.Client.RbacV1().ClusterRoleBindings().Delete(ctx, t.NS+":auth-delegator", remove),
			t.Client.RbacV1().ClusterRoles().Delete(ctx, "sample-apiserver-"+t.NS, remove),
		} {
			if err != nil {
				t.Error(err)
			}
		}
	})
	if out, err := t.kubectl(yaml, "create", "-f", "-"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	defer func() {
		if t.Failed() {
			pods, _ := t.kubectl("", "describe", "pods")
			logs, _ := t.kubectl("", "logs", "deployment/sample-apiserver-deployment", "--all-containers", "--tail=30")
			t.Logf("%s\n%s", pods, logs)
		}
	}()
	t.kubectlOK("rollout", "status", "deployment/sample-apiserver-deployment", "--timeout="+timeout.String())
	return ca
}

var _ = OverNetwork("[sig-api-machinery] Aggregator Should be able to support the 1.17 Sample API Server using the current Aggregator", func(t *T) {
	const name, group = "v1alpha1.wardle.example.com", "wardle.example.com"
	ca := t.sampleAPIServer()
	services := got[*aggregator.Clientset](t)(aggregator.NewForConfig(t.Config)).ApiregistrationV1().APIServices()
	port := int32(7443)
	_, err := services.Create(t.Context(), &apiregistration.APIService{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: apiregistration.APIServiceSpec{
		Service: &apiregistration.ServiceReference{Namespace: t.NS, Name: "sample-api", Port: &port},
		Group:   group, Version: "v1alpha1", CABundle: ca, GroupPriorityMinimum: 2000, VersionPriority: 200}}, create)
	t.must(err)
	t.Cleanup(func() {
		if err := services.Delete(context.WithoutCancel(t.Context()), name, remove); err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
	rest := t.Client.Discovery().RESTClient()
	flunders := "/apis/wardle.example.com/v1alpha1/namespaces/" + t.NS + "/flunders"
	t.until("the sample API server", func(ctx context.Context) (bool, error) {
		return rest.Get().AbsPath(flunders).SetHeader("Accept", "application/json").Do(ctx).Error() == nil, nil
	})

	// Flunders are created and deleted by plain requests, and by a client that uses
	// discovery.
	count := func(want int) {
		t.Helper()
		var list struct {
			Items []metav1.PartialObjectMetadata
		}
		t.must(json.Unmarshal(got[[]byte](t)(rest.Get().AbsPath(flunders).SetHeader("Accept", "application/json").Do(t.Context()).Raw()), &list))
		if len(list.Items) != want {
			t.Errorf("%d flunders, want %d", len(list.Items), want)
		}
	}
	flunder := "rest-flunder-" + rand.String(5)
	object := t.object("{apiVersion: wardle.example.com/v1alpha1, kind: Flunder, metadata: {name: %s, labels: {sample-label: 'true'}}}", flunder)
	var code int
	r := rest.Post().AbsPath(flunders).Body(got[[]byte](t)(object.MarshalJSON())).SetHeader("Accept", "application/json").Do(t.Context()).StatusCode(&code)
	if r.Error() != nil || code != http.StatusCreated {
		t.Fatalf("creation: %d, %v", code, r.Error())
	}
	count(1)
	t.must(rest.Delete().AbsPath(flunders + "/" + flunder).Do(t.Context()).Error())
	count(0)
	if kind := t.aggregatedResources()[gvr(group, "v1alpha1", "flunders")]; kind != "Flunder" {
		t.Errorf("discovery has %q for flunders", kind)
	}
	client := t.Dynamic.Resource(gvr(group, "v1alpha1", "flunders")).Namespace(t.NS)
	object.SetName("dynamic-flunder-" + rand.String(5))
	if u := got[*unstructured.Unstructured](t)(client.Create(t.Context(), object, create)); u.GetLabels()["sample-label"] != "true" {
		t.Errorf("created %v", u)
	}
	if l := got[*unstructured.UnstructuredList](t)(client.List(t.Context(), all)); len(l.Items) != 1 {
		t.Errorf("%d flunders", len(l.Items))
	}
	t.must(client.Delete(t.Context(), object.GetName(), remove))
	count(0)

	// The APIService itself can be read, patched, updated and listed.
	status := func() *apiregistration.APIService {
		t.Helper()
		a := &apiregistration.APIService{}
		raw := got[[]byte](t)(rest.Get().AbsPath("/apis/apiregistration.k8s.io/v1/apiservices/"+name+"/status").SetHeader("Accept", "application/json").Do(t.Context()).Raw())
		t.must(json.NewDecoder(bytes.NewReader(raw)).Decode(a))
		return a
	}
	if a := status(); !helper.IsAPIServiceConditionTrue(a, apiregistration.Available) {
		t.Errorf("the status is %v", a.Status)
	}
	t.kubectlOK("patch", "apiservice", name, "-p", `{"spec":{"versionPriority": 400}}`)
	found := false
	for _, a := range got[*apiregistration.APIServiceList](t)(services.List(t.Context(), all)).Items {
		found = found || a.Name == name && a.Spec.VersionPriority == 400
	}
	if !found {
		t.Error("the list lacks the APIService with its new priority")
	}
	mine := metav1.ListOptions{LabelSelector: "e2e-apiservice=" + t.NS}
	_, err = services.Patch(t.Context(), name, types.MergePatchType, patchOf(dict{"metadata": dict{"labels": dict{"e2e-apiservice": t.NS}}}), metav1.PatchOptions{})
	t.must(err)
	condition := func(kind apiregistration.APIServiceConditionType) apiregistration.APIServiceCondition {
		return apiregistration.APIServiceCondition{Type: kind, Status: apiregistration.ConditionTrue, Reason: "E2E", Message: "Set from e2e test"}
	}
	for {
		a := got[*apiregistration.APIService](t)(services.Get(t.Context(), name, get))
		a.Status.Conditions = append(a.Status.Conditions, condition("StatusUpdated"))
		if _, err = services.UpdateStatus(t.Context(), a, update); !apierrors.IsConflict(err) {
			break
		}
	}
	t.must(err)
	if a := status(); !helper.IsAPIServiceConditionTrue(a, "StatusUpdated") || !helper.IsAPIServiceConditionTrue(a, apiregistration.Available) {
		t.Errorf("after the update: %v", a.Status)
	}
	for {
		a := got[*apiregistration.APIService](t)(services.Get(t.Context(), name, get))
		a.Spec.VersionPriority = 100
		if _, err = services.Update(t.Context(), a, update); !apierrors.IsConflict(err) {
			break
		}
	}
	t.must(err)
	_, err = services.Patch(t.Context(), name, types.StrategicMergePatchType, patchOf(dict{"status": dict{"conditions": []any{condition("StatusPatched")}}}), metav1.PatchOptions{}, "status")
	t.must(err)
	if a := status(); !helper.IsAPIServiceConditionTrue(a, "StatusPatched") || !helper.IsAPIServiceConditionTrue(a, apiregistration.Available) || a.Spec.VersionPriority != 100 {
		t.Errorf("after the patch: %v", a)
	}
	t.must(services.DeleteCollection(t.Context(), remove, mine))
	t.until("the end of the APIService", func(ctx context.Context) (bool, error) {
		l, err := services.List(ctx, mine)
		return err == nil && len(l.Items) == 0, err
	})
	t.until("the end of the group", func(ctx context.Context) (bool, error) {
		err := rest.Get().AbsPath(flunders).SetHeader("Accept", "application/json").Do(ctx).Error()
		return apierrors.IsNotFound(err), nil
	})
})
