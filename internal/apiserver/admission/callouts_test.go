package admission

import (
	"io"
	"testing"

	arv1 "k8s.io/api/admissionregistration/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/client-go/tools/cache"
)

// silent is an informer with configurations whose handlers have not been called
// yet.
type silent struct {
	cache.SharedIndexInformer
	synced bool
	store  cache.Store
}

func (s *silent) AddEventHandler(cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	return registration{s}, nil
}
func (s *silent) GetStore() cache.Store { return s.store }

type registration struct{ s *silent }

func (r registration) HasSynced() bool                     { return r.s.synced }
func (r registration) HasSyncedChecker() cache.DoneChecker { return nil }

// TestConfiguredAtTheStart checks that the first requests after a start are subject
// to what was configured before, though its event is still on the way.
func TestConfiguredAtTheStart(t *testing.T) {
	for _, c := range []struct {
		name           string
		stored, synced bool
		asked          bool
	}{
		{"nothing", false, false, false},
		{"nothing, as is known", false, true, false},
		{"a webhook, of which there will be an event", true, false, true},
	} {
		s := &silent{synced: c.synced, store: cache.NewStore(cache.MetaNamespaceKeyFunc)}
		if c.stored {
			if err := s.store.Add(&arv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "w"}}); err != nil {
				t.Fatal(err)
			}
		}
		made := false
		e := &Environment{Configuration: noConfiguration{}}
		callout, err := e.newCallout("ValidatingAdmissionWebhook", admission.NewHandler(admission.Create), s, func(io.Reader) (admission.Interface, error) {
			made = true
			return nil, io.EOF
		})
		if err != nil {
			t.Fatal(err)
		}
		_, _ = callout.plugin(request(v1.SchemeGroupVersion.WithResource("pods"), "", admission.Create, &v1.Pod{}, nil))
		if made != c.asked {
			t.Errorf("%s: asked %v", c.name, made)
		}
	}
}

type noConfiguration struct{}

func (noConfiguration) ConfigFor(string) (io.Reader, error) { return nil, nil }
